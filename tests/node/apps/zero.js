// Any port; which it is can be read in the log.
const http = require('node:http');
const { hello } = require('./lib/hello');

const server = http.createServer(hello).listen(0, '127.0.0.1', () => {
  console.error(`port ${server.address().port}`);
});
