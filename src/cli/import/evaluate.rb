# Evaluates a puma.rb without Puma: each setting that it calls is noted, blocks are not run. What comes of it goes to standard
# input, which is a socket: whatever the file prints cannot come between. One line of JSON: {"value": [...]} or {"error": "..."}.
require "json"

PATH = File.realpath(ARGV[0])

def plain(value, depth = 0)
  return { "not data: " => "a circle" } if depth > 20
  case value
  when nil, true, false then value
  when Integer then value.abs < 2**63 ? value : value.to_s
  when Float then value.finite? ? value : value.to_s
  when Symbol, String then value.to_s.dup.force_encoding("UTF-8").scrub
  when Array then value.map { |item| plain(item, depth + 1) }
  when Hash then value.to_h { |key, item| [key.to_s, plain(item, depth + 1)] }
  when Proc, Method then { "not data: " => "a block" }
  else { "not data: " => "a #{value.class}" }
  end
end

class Recorder
  attr_reader :called

  def initialize
    @called = []
  end

  # Kernel has some of the names, too.
  [:load, :test, :raise_exception_on_sigterm].each do |name|
    define_method(name) { |*values, **named, &block| method_missing(name, *values, **named, &block) }
  end

  def method_missing(name, *values, **named, &block)
    values.push(named) unless named.empty?
    values.push(block) if block
    @called.push([name.to_s, values])
    nil
  end

  def respond_to_missing?(*)
    true
  end
end

answer = begin
  # Puma reads it where the app is, which is above config/.
  folder = File.dirname(PATH)
  folder = folder.sub(%r{/config(/puma)?\z}, "")
  Dir.chdir(folder.empty? ? "/" : folder)
  recorder = Recorder.new
  recorder.instance_eval(File.read(PATH, encoding: "UTF-8"), PATH)
  JSON.generate("value" => plain(recorder.called))
rescue SyntaxError => error
  JSON.generate("error" => "SyntaxError: #{error.message.lines.first.to_s.strip.scrub}")
rescue Exception => error
  line = (error.backtrace || []).map { |at| at[/\A#{Regexp.escape(PATH)}:(\d+)/, 1] }.compact.first
  text = "#{error.class}: #{error.message.to_s.scrub.lines.first.to_s.strip}"
  JSON.generate("error" => line ? "line #{line}: #{text}" : text)
end

socket = IO.for_fd(0, "r+", autoclose: false)
socket.sync = true
socket.write("#{answer}\n")
exit!(0)
