const http = require('node:http');
const { hello } = require('./lib/hello');

const server = http.createServer(hello);
server.on('error', (e) => {
  console.error(`cannot listen: ${e.code}`);
  process.exit(1);
});
server.listen({ port: Number(process.env.PORT), host: '127.0.0.1', exclusive: true });
