// A WebSocket that asks once for each line of its input, and says when it was closed.
const { WebSocket } = require('ws');

const socket = new WebSocket(`ws://127.0.0.1:${process.argv[2]}`);
socket.on('open', () => console.log('open'));
socket.on('message', (data) => console.log(String(data).trim()));
socket.on('error', (e) => console.log(`error ${e.code}`));
socket.on('close', () => {
  console.log('closed');
  process.exit(0);
});
const lines = require('node:readline').createInterface({ input: process.stdin });
lines.on('line', () => socket.send('who'));
lines.on('close', () => socket.close());
