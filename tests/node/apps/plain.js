const http = require('node:http');
const { hello } = require('./lib/hello');

http.createServer(hello).listen(process.env.PORT);
