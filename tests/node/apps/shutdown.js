// PM2's `shutdown_with_message`.
const http = require('node:http');
const { hello } = require('./lib/hello');

const server = http.createServer(hello).listen(process.env.PORT);
process.on('message', (message) => {
  if (message === 'shutdown') {
    console.error('told to shut down');
    server.close(() => process.exit(0));
  }
});
