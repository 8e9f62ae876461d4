//! The settings of gunicorn, as its versions 20 to 27 know them: what they are called, on the command line too, and what
//! becomes of them here.

/// What a flag of the command line takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli::import) enum Takes {
    /// There is no flag.
    Nothing,
    Flag,
    Value,
    /// A value, each time that it is given.
    List,
    /// A value or none.
    Maybe,
}

/// What becomes of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli::import) enum Fate {
    /// It is said in our file.
    Here,
    /// It is gunicorn's own, and goes on being said to it.
    Kept,
    /// A function that gunicorn calls.
    Hook,
    /// It means nothing here, for this reason.
    Drop(&'static str),
    /// A worker that is told this does not serve, or not for long.
    Clash(&'static str),
}

use Fate::{Clash, Drop, Here, Hook, Kept};
use Takes::{Flag, List, Maybe, Nothing, Value};

const BACKLOG: &str = "the sockets are dogwatch's: 'Backlog=' in the socket unit";
const RELOAD: &str = "nothing is watched: let the deploy call 'dogwatch reload {app}'";
const NO_SERVER: &str = "is for looking, a worker has to serve";
const PRELOAD: &str = "nothing is shared among workers: each loads the app by itself";
const REUSE: &str =
    "the sockets are dogwatch's: 'balance = \"steered\"' gives each worker one of its own";
const DAEMON: &str =
    "a worker stays where it was started, and dogwatch in the foreground of its unit";
const PIDFILE: &str =
    "the second worker would find the first one's and end; 'dogwatch list --json' has the pids";
const USER: &str =
    "systemd starts the service as its user: 'user = \"NAME\"' and 'group = \"NAME\"' in this file";
const CONTROL: &str =
    "'dogwatch show {app}' tells of the workers; each would have a socket at the same path";
const NEVER: &str = "never called: a reload starts new processes, and 'dogwatch scale' starts more";

/// A setting: its name, its flags, what these take, and its fate.
pub(in crate::cli::import) type Setting = (&'static str, &'static [&'static str], Takes, Fate);

pub(in crate::cli::import) const SETTINGS: [Setting; 121] = [
    ("config", &["-c", "--config"], Value, Here),
    ("wsgi_app", &[], Nothing, Here),
    ("bind", &["-b", "--bind"], List, Here),
    ("backlog", &["--backlog"], Value, Drop(BACKLOG)),
    ("workers", &["-w", "--workers"], Value, Here),
    ("worker_class", &["-k", "--worker-class"], Value, Here),
    ("threads", &["--threads"], Value, Kept),
    ("worker_connections", &["--worker-connections"], Value, Kept),
    ("max_requests", &["--max-requests"], Value, Kept),
    ("max_requests_jitter", &["--max-requests-jitter"], Value, Kept),
    ("timeout", &["-t", "--timeout"], Value, Kept),
    ("graceful_timeout", &["--graceful-timeout"], Value, Here),
    ("keepalive", &["--keep-alive"], Value, Kept),
    ("limit_request_line", &["--limit-request-line"], Value, Kept),
    ("limit_request_fields", &["--limit-request-fields"], Value, Kept),
    ("limit_request_field_size", &["--limit-request-field_size"], Value, Kept),
    ("reload", &["--reload"], Flag, Clash(RELOAD)),
    ("reload_engine", &["--reload-engine"], Value, Drop(RELOAD)),
    ("reload_extra_files", &["--reload-extra-file"], List, Drop(RELOAD)),
    ("spew", &["--spew"], Flag, Clash(NO_SERVER)),
    ("check_config", &["--check-config"], Flag, Clash(NO_SERVER)),
    ("print_config", &["--print-config"], Flag, Clash(NO_SERVER)),
    ("preload_app", &["--preload"], Flag, Drop(PRELOAD)),
    ("sendfile", &["--no-sendfile"], Flag, Kept),
    ("reuse_port", &["--reuse-port"], Flag, Drop(REUSE)),
    ("chdir", &["--chdir"], Value, Here),
    ("daemon", &["-D", "--daemon"], Flag, Clash(DAEMON)),
    ("raw_env", &["-e", "--env"], List, Here),
    ("pidfile", &["-p", "--pid"], Value, Clash(PIDFILE)),
    ("worker_tmp_dir", &["--worker-tmp-dir"], Value, Kept),
    ("user", &["-u", "--user"], Value, Clash(USER)),
    ("group", &["-g", "--group"], Value, Clash(USER)),
    ("umask", &["-m", "--umask"], Value, Kept),
    ("initgroups", &["--initgroups"], Flag, Clash(USER)),
    ("tmp_upload_dir", &[], Nothing, Kept),
    ("secure_scheme_headers", &[], Nothing, Kept),
    ("forwarded_allow_ips", &["--forwarded-allow-ips"], Value, Kept),
    ("accesslog", &["--access-logfile"], Value, Kept),
    ("disable_redirect_access_to_syslog", &["--disable-redirect-access-to-syslog"], Flag, Kept),
    ("access_log_format", &["--access-logformat"], Value, Kept),
    ("errorlog", &["--error-logfile", "--log-file"], Value, Kept),
    ("loglevel", &["--log-level"], Value, Kept),
    ("capture_output", &["--capture-output"], Flag, Kept),
    ("logger_class", &["--logger-class"], Value, Kept),
    ("logconfig", &["--log-config"], Value, Kept),
    ("logconfig_dict", &[], Nothing, Kept),
    ("logconfig_json", &["--log-config-json"], Value, Kept),
    ("syslog_addr", &["--log-syslog-to"], Value, Kept),
    ("syslog", &["--log-syslog"], Flag, Kept),
    ("syslog_prefix", &["--log-syslog-prefix"], Value, Kept),
    ("syslog_facility", &["--log-syslog-facility"], Value, Kept),
    ("enable_stdio_inheritance", &["-R", "--enable-stdio-inheritance"], Flag, Kept),
    ("statsd_host", &["--statsd-host"], Value, Kept),
    ("dogstatsd_tags", &["--dogstatsd-tags"], Value, Kept),
    ("statsd_prefix", &["--statsd-prefix"], Value, Kept),
    ("enable_backlog_metric", &["--enable-backlog-metric"], Flag, Kept),
    ("proc_name", &["-n", "--name"], Value, Kept),
    ("default_proc_name", &[], Nothing, Kept),
    ("pythonpath", &["--pythonpath"], Value, Kept),
    ("paste", &["--paste", "--paster"], Value, Kept),
    ("on_starting", &[], Nothing, Hook),
    ("on_reload", &[], Nothing, Drop(NEVER)),
    ("when_ready", &[], Nothing, Hook),
    ("pre_fork", &[], Nothing, Hook),
    ("post_fork", &[], Nothing, Hook),
    ("post_worker_init", &[], Nothing, Hook),
    ("worker_int", &[], Nothing, Hook),
    ("worker_abort", &[], Nothing, Hook),
    ("pre_exec", &[], Nothing, Hook),
    ("pre_request", &[], Nothing, Hook),
    ("post_request", &[], Nothing, Hook),
    ("child_exit", &[], Nothing, Hook),
    ("worker_exit", &[], Nothing, Hook),
    ("nworkers_changed", &[], Nothing, Drop(NEVER)),
    ("on_exit", &[], Nothing, Hook),
    ("ssl_context", &[], Nothing, Hook),
    ("proxy_protocol", &["--proxy-protocol"], Maybe, Kept),
    ("proxy_allow_ips", &["--proxy-allow-from"], Value, Kept),
    ("protocol", &["--protocol"], Value, Kept),
    ("uwsgi_allow_ips", &["--uwsgi-allow-from"], Value, Kept),
    ("keyfile", &["--keyfile"], Value, Kept),
    ("certfile", &["--certfile"], Value, Kept),
    ("ssl_version", &["--ssl-version"], Value, Kept),
    ("cert_reqs", &["--cert-reqs"], Value, Kept),
    ("ca_certs", &["--ca-certs"], Value, Kept),
    ("suppress_ragged_eofs", &["--suppress-ragged-eofs"], Flag, Kept),
    ("do_handshake_on_connect", &["--do-handshake-on-connect"], Flag, Kept),
    ("ciphers", &["--ciphers"], Value, Kept),
    ("http_protocols", &["--http-protocols"], Value, Kept),
    ("http2_cleartext", &["--http2-cleartext"], Value, Kept),
    ("http2_max_concurrent_streams", &["--http2-max-concurrent-streams"], Value, Kept),
    ("http2_initial_window_size", &["--http2-initial-window-size"], Value, Kept),
    ("http2_max_frame_size", &["--http2-max-frame-size"], Value, Kept),
    ("http2_max_header_list_size", &["--http2-max-header-list-size"], Value, Kept),
    ("raw_paste_global_conf", &["--paste-global"], List, Kept),
    ("permit_obsolete_folding", &["--permit-obsolete-folding"], Flag, Kept),
    ("strip_header_spaces", &["--strip-header-spaces"], Flag, Kept),
    ("permit_unconventional_http_method", &["--permit-unconventional-http-method"], Flag, Kept),
    ("permit_unconventional_http_version", &["--permit-unconventional-http-version"], Flag, Kept),
    ("casefold_http_method", &["--casefold-http-method"], Flag, Kept),
    ("forwarder_headers", &["--forwarder-headers"], Value, Kept),
    ("header_map", &["--header-map"], Value, Kept),
    ("asgi_loop", &["--asgi-loop"], Value, Kept),
    ("asgi_lifespan", &["--asgi-lifespan"], Value, Kept),
    ("asgi_disconnect_grace_period", &["--asgi-disconnect-grace-period"], Value, Kept),
    ("websocket_max_message_size", &["--websocket-max-message-size"], Value, Kept),
    ("http_parser", &["--http-parser"], Value, Kept),
    ("root_path", &["--root-path"], Value, Kept),
    ("dirty_apps", &["--dirty-app"], List, Kept),
    ("dirty_workers", &["--dirty-workers"], Value, Kept),
    ("dirty_timeout", &["--dirty-timeout"], Value, Kept),
    ("dirty_threads", &["--dirty-threads"], Value, Kept),
    ("dirty_graceful_timeout", &["--dirty-graceful-timeout"], Value, Kept),
    ("on_dirty_starting", &[], Nothing, Hook),
    ("dirty_post_fork", &[], Nothing, Hook),
    ("dirty_worker_init", &[], Nothing, Hook),
    ("dirty_worker_exit", &[], Nothing, Hook),
    ("control_socket", &["--control-socket"], Value, Drop(CONTROL)),
    ("control_socket_mode", &["--control-socket-mode"], Value, Drop(CONTROL)),
    ("control_socket_disable", &["--no-control-socket"], Flag, Kept),
    ("tolerate_dangerous_framing", &["--tolerate-dangerous-framing"], Flag, Kept),
];

/// Returns the setting of this name.
pub(super) fn named(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|(known, ..)| *known == name)
}

/// Returns the setting that this flag is for.
pub(super) fn flagged(flag: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|(_, flags, ..)| flags.contains(&flag))
}
