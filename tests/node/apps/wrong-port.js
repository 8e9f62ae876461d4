// Listens where it should, and where nobody has told dogwatch that it would.
const http = require('node:http');
const { hello } = require('./lib/hello');

http.createServer(hello).listen(process.env.PORT);
http
  .createServer(hello)
  .on('error', (e) => console.error(`no second listener: ${e.code}`))
  .listen(process.env.WRONG_PORT);
