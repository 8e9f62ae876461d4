// Serves, and misbehaves on its channel as soon as one asks for `/garbage?kind=…`.
const { writeSync } = require('node:fs');
const http = require('node:http');
const net = require('node:net');
const { hello } = require('./lib/hello');

// The descriptor blocks not: a full channel is tried again.
const raw = (data) => {
  let bytes = Buffer.from(data);
  while (bytes.length > 0) {
    try {
      bytes = bytes.subarray(writeSync(process.channel.fd, bytes));
    } catch (e) {
      if (e.code !== 'EAGAIN') throw e;
    }
  }
};
const cluster = (message) => raw(`${JSON.stringify({ cmd: 'NODE_CLUSTER', ...message })}\n`);

const kinds = {
  half: () => raw('{"cmd":"NODE_CLUSTER","act":"onl'),
  binary: () => raw(Buffer.concat([Buffer.alloc(1000, 0xff), Buffer.from('\n\0\n\x02\n[[[[\n')])),
  nested: () => raw(`${'['.repeat(100_000)}\n`),
  huge: () => raw(`"${'x'.repeat(20 * 1024 * 1024)}"\n`),
  acts: () => {
    for (const act of ['fly', '', null, 7, ['online'], {}]) cluster({ act, seq: 9 });
    cluster({});
    cluster({ act: 'queryServer' });
    cluster({ act: 'queryServer', seq: -1, port: 1e300, address: {}, addressType: 'x', fd: 'y', index: [] });
    cluster({ act: 'queryServer', seq: 5, port: 70000, address: '::', addressType: 4 });
    cluster({ act: 'queryServer', seq: 6, fd: -3 });
    cluster({ act: 'queryServer', seq: 7, port: -1, address: '/'.repeat(5000), addressType: -1 });
    cluster({ act: 'listening', port: 1, address: null, addressType: 4 });
    cluster({ act: 'close', key: 'nobody knows' });
    for (const ack of [0, 1, -1, 1e30, 'x', null]) cluster({ ack, accepted: false });
    for (const cmd of ['NODE_', 'NODE_HANDLE', 'NODE_HANDLE_ACK', 'NODE_HANDLE_NACK', 'NODE_SOCKET_ALL_CLOSED', 'NODE_X']) {
      raw(`${JSON.stringify({ cmd })}\n`);
    }
  },
  handle: () => net.connect(process.env.PORT, '127.0.0.1', function connected() {
    process.send({ a: 'socket' }, this);
    process.send('behind the socket');
  }),
  // Each is a message of the program; nobody follows them.
  flood: () => {
    for (let n = 0; n < 200_000; n += 1) raw(`{"n":${n},"x":"${'y'.repeat(50)}"}\n`);
  },
};

http
  .createServer((request, response) => {
    const url = new URL(request.url, 'http://localhost');
    if (url.pathname !== '/garbage') return hello(request, response);
    kinds[url.searchParams.get('kind')]();
    response.end('sent\n');
  })
  .listen(process.env.PORT);
