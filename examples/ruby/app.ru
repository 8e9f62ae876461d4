# Rack. It could be that of Rails or Sinatra.
run ->(env) { [200, { 'content-type' => 'text/plain' }, ["pid #{Process.pid}\n"]] }
