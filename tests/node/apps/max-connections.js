const http = require('node:http');
const { hello } = require('./lib/hello');

const server = http.createServer(hello).listen(process.env.PORT);
server.maxConnections = 1;
