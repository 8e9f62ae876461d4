const dgram = require('node:dgram');
const { who } = require('./lib/hello');

const socket = dgram.createSocket('udp4');
socket.on('message', (_, { port, address }) => socket.send(who(), port, address));
socket.bind(Number(process.env.PORT), '127.0.0.1');
