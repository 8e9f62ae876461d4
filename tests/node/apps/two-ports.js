const http = require('node:http');
const { who } = require('./lib/hello');

http.createServer((_, response) => response.end(`first ${who()}`)).listen(process.env.PORT);
http.createServer((_, response) => response.end(`second ${who()}`)).listen(process.env.PORT2);
