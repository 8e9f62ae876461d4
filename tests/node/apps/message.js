const http = require('node:http');
const { hello } = require('./lib/hello');

http.createServer(hello).listen(process.env.PORT);
process.on('message', (message) => process.send({ echo: message, slot: process.env.NODE_APP_INSTANCE }));
