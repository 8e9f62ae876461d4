// A Node web server under systemd's socket activation: listen on file descriptor 3, finish on SIGTERM.
const http = require('node:http');

let stopping = false;
const server = http.createServer((request, response) => {
  if (stopping) response.setHeader('Connection', 'close');
  response.end(`hello from pid ${process.pid}\n`);
});

server.listen({ fd: 3 });

process.on('SIGTERM', () => {
  stopping = true;
  server.close(() => process.exit(0)); // no new connections; idle ones are closed, requests are answered
});
