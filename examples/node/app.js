// Any server of Node's, without a line about clusters or sockets: handoff = "node" gives listen() the app's socket.
const http = require('node:http')

http.createServer((request, response) => {
  response.end(`pid ${process.pid}, slot ${process.env.NODE_APP_INSTANCE}\n`)
}).listen(process.env.PORT || 8080)
