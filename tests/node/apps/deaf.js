// No manners: nothing hears a signal, and it would never end by itself.
const http = require('node:http');
const { hello } = require('./lib/hello');

http.createServer(hello).listen(process.env.PORT);
setInterval(() => {}, 60_000);
