// A worker with a child of its own, which has a channel of its own.
const { fork } = require('node:child_process');
const http = require('node:http');
const { who } = require('./lib/hello');

if (process.argv[2] === 'child') {
  process.on('message', (message) => process.send(`child ${process.env.NODE_CHANNEL_FD} heard ${message}`));
} else {
  const child = fork(__filename, ['child']);
  http
    .createServer((_, response) => {
      child.once('message', (message) => response.end(`${message}, ${who()}`));
      child.send('hello');
    })
    .listen(process.env.PORT);
}
