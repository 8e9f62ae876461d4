// The primary of Node's own cluster module: `node cluster.js WORKERS PORT`.
const cluster = require('node:cluster');
const path = require('node:path');

const [workers, port] = process.argv.slice(2);
cluster.setupPrimary({ exec: path.join(__dirname, 'app.js'), args: [port] });
for (let i = 0; i < Number(workers); i++) cluster.fork();
