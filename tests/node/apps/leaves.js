// Leaves by itself when asked to.
const cluster = require('node:cluster');
const http = require('node:http');
const { hello } = require('./lib/hello');

http
  .createServer((request, response) => {
    hello(request, response);
    if (request.url === '/leave') {
      cluster.worker.disconnect();
    }
  })
  .listen(process.env.PORT);
