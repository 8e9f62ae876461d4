// The usual cluster example without its cluster code: what was its worker's half.
const http = require('node:http');
const { who } = require('./lib/hello');

// Workers can share any TCP connection
// In this case it is an HTTP server
http.createServer((req, res) => {
  res.writeHead(200);
  res.end(who());
}).listen(Number(process.env.PORT));

console.log(`Worker ${process.pid} started`);
