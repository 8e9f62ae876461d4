// Listens, and from `/block` on its only thread does nothing more: it reads neither requests nor its channel.
const http = require('node:http');
const { hello } = require('./lib/hello');

http
  .createServer((request, response) => {
    if (request.url !== '/block') return hello(request, response);
    response.end('from now on\n', () => setImmediate(() => {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    }));
  })
  .listen(process.env.PORT);
