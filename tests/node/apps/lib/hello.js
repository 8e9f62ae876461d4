// What each app here answers: who it is. `/slow?ms=N` takes its time, and is told of in the log.
const cluster = require('node:cluster');

exports.who = () => {
  const { pid, env } = process;
  return `pid ${pid} slot ${env.NODE_APP_INSTANCE} worker ${cluster.worker?.id}\n`;
};

exports.hello = (request, response) => {
  const url = new URL(request.url, 'http://localhost');
  if (url.pathname === '/slow') {
    console.error('asked to wait');
    setTimeout(() => response.end(exports.who()), Number(url.searchParams.get('ms')));
  } else {
    response.end(exports.who());
  }
};
