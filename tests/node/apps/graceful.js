// An app with manners of its own.
const http = require('node:http');
const { hello } = require('./lib/hello');

const server = http.createServer(hello).listen(process.env.PORT);
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, () => server.close(() => process.exit(0)));
}
