// For each line of its input a TLS connection that asks for `/`, with the session of the one before.
const tls = require('node:tls');

let session;
const ask = () =>
  new Promise((resolve, reject) => {
    let resumed;
    const socket = tls.connect({ port: Number(process.argv[2]), rejectUnauthorized: false, session }, () => {
      resumed = socket.isSessionReused();
      socket.write('GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n');
    });
    let answer = '';
    socket.on('session', (ticket) => {
      session = ticket;
    });
    socket.on('data', (data) => {
      answer += data;
    });
    socket.on('error', reject);
    socket.on('close', () => {
      resolve(`resumed ${resumed} ${answer.match(/pid .*/)}`);
    });
  });

(async () => {
  for await (const _ of require('node:readline').createInterface({ input: process.stdin })) {
    console.log(await ask());
  }
})();
