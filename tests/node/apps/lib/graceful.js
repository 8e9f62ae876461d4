// Required before an app: at a signal it closes its servers and ends, as an app with manners does.
const net = require('node:net');

const servers = new Set();
const { listen } = net.Server.prototype;
net.Server.prototype.listen = function remembered(...rest) {
  servers.add(this);
  return listen.apply(this, rest);
};
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, () => {
    let open = servers.size;
    for (const server of servers) server.close(() => (open -= 1) || process.exit(0));
  });
}
