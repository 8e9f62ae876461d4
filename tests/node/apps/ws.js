const http = require('node:http');
const { WebSocketServer } = require('ws');
const { hello, who } = require('./lib/hello');

const server = http.createServer(hello);
new WebSocketServer({ server }).on('connection', (socket) => {
  socket.on('message', () => socket.send(who()));
});
server.listen(process.env.PORT);
