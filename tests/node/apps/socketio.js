const http = require('node:http');
const { Server } = require('socket.io');
const { hello, who } = require('./lib/hello');

const server = http.createServer(hello);
new Server(server).on('connection', (socket) => {
  socket.on('who', (answer) => answer(who()));
});
server.listen(process.env.PORT);
