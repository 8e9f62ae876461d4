// An app for systemd's socket activation.
const http = require('node:http');
const { hello } = require('./lib/hello');

http.createServer(hello).listen({ fd: 3 });
