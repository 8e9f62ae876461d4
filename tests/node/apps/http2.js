const http2 = require('node:http2');
const { hello } = require('./lib/hello');

http2.createServer(hello).listen(process.env.PORT);
