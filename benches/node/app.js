// A web server that knows of no cluster; its answer says who gave it.
const http = require('node:http');

http
  .createServer((request, response) => response.end(`${process.pid}\n`))
  .listen(Number(process.argv[2]), '127.0.0.1');
