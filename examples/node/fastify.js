// Fastify, as everybody writes it; Next, Nest and Koa are the same: they all end in Node's listen().
const fastify = require('fastify')()

fastify.get('/', async () => `pid ${process.pid}\n`)

fastify.listen({ port: Number(process.env.PORT || 8080), host: '::' })
