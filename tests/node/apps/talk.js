// Workers that speak to each other; who hears something logs it.
const http = require('node:http');
const { hello } = require('./lib/hello');

process.on('message', ({ type, from, data, reason }) => {
  console.error(`slot ${process.env.NODE_APP_INSTANCE} heard ${type} ${from?.slot} ${data ?? reason}`);
});
http
  .createServer((request, response) => {
    const to = new URL(request.url, 'http://localhost').searchParams.get('to');
    if (to) process.send({ type: 'dogwatch:send', to: JSON.parse(to), data: `news for ${to}` });
    hello(request, response);
  })
  .listen(process.env.PORT);
