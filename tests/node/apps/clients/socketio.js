// Clients from several addresses, each with its transport; each asks several times and tells who answered.
const http = require('node:http');
const { io } = require('socket.io-client');

const [port, ...transports] = process.argv.slice(2);
const talk = (number) =>
  new Promise((resolve) => {
    // Polling without kept connections: each request may reach another worker.
    const socket = io(`http://127.0.0.1:${port}`, {
      transports,
      agent: new http.Agent({ localAddress: `127.0.0.${number}`, keepAlive: false }),
      forceNew: true,
      reconnection: false,
    });
    const fail = (e) => resolve(`${number} failed: ${e}`);
    socket.on('connect_error', fail);
    socket.on('disconnect', fail);
    socket.on('connect', async () => {
      const answers = new Set();
      for (let n = 0; n < 5; n += 1) {
        answers.add(await socket.timeout(10_000).emitWithAck('who').catch(fail));
      }
      resolve(`${number} ${socket.io.engine.transport.name} ${[...answers].join('')}`.trim());
      socket.off('disconnect', fail);
      socket.close();
    });
  });
Promise.all([2, 3, 4, 5, 6, 7, 8, 9].map(talk)).then((lines) => console.log(lines.join('\n')));
