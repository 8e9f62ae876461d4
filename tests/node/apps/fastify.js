const { setTimeout } = require('node:timers/promises');
const fastify = require('fastify');
const { who } = require('./lib/hello');

const app = fastify();
app.get('/', async () => who());
app.get('/slow', async (request) => {
  await setTimeout(Number(request.query.ms));
  return who();
});
app.listen({ port: Number(process.env.PORT) });
