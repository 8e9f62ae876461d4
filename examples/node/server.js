// A Node web server under systemd's socket activation: listen on file descriptor 3, finish on SIGTERM.
const http = require('node:http');

let stopping = false;
const server = http.createServer((request, response) => {
  if (stopping) response.setHeader('Connection', 'close');
  response.end(`hello from pid ${process.pid}\n`);
});

server.listen({ fd: 3 });

process.on('SIGTERM', () => {
  // From now on every answer ends its connection. close() ends idle ones at once, so it comes a little later: a client
  // that is just about to speak is still heard. And what has come meanwhile is read before it, also after a stall.
  stopping = true;
  setTimeout(() => setImmediate(() => server.close(() => process.exit(0))), 500);
});
