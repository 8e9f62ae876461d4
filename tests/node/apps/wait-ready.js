// PM2's `wait_ready`: it listens at once and is ready when it says so.
const http = require('node:http');
const { hello } = require('./lib/hello');

http.createServer(hello).listen(process.env.PORT, () => {
  setTimeout(() => process.send('ready'), 300);
});
