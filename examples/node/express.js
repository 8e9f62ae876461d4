// Express, as everybody writes it.
const app = require('express')()

app.get('/', (request, response) => response.send(`pid ${process.pid}\n`))

app.listen(process.env.PORT || 8080)
