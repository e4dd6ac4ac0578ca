//! `healthCheckNodePort`: at a port of this node, load balancers ask by HTTP whether it has ready endpoints of a service.
//! The answer is kube-proxy's.
//!
//! A thread of their own answers, so that no asker keeps the agent's loop, nor it them.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as Bound},
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::CONTENT_TYPE,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tracing::{error, info};

use super::port_conflicts::PortConflicts;
use crate::model::{Protocol, ServiceName};

/// Connections that one port may have at a time; the oldest one goes for one more.
const MOST: usize = 64;
/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a request that are kept while it is incomplete.
const HEADERS: usize = 16 << 10;

/// What is to be answered where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Of which service.
    pub service: ServiceName,
    /// At which port.
    pub port: u16,
    /// How many of its ready endpoints are on this node.
    pub endpoints: usize,
}

/// The ports that are answered at.
#[derive(Default)]
pub struct HealthChecks {
    /// From the first port on.
    runtime: Option<Runtime>,
    servers: BTreeMap<SocketAddr, Server>,
    /// Why a port is not answered at.
    failed: BTreeMap<SocketAddr, String>,
}

struct Server {
    answer: watch::Sender<HealthCheck>,
    task: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HealthChecks {
    /// Answers these at the addresses, none of which stands for all, and no others. What could not be done is tried
    /// again with the next call.
    pub fn follow(&mut self, checks: &[HealthCheck], addresses: &[IpAddr]) {
        let all = [IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let addresses = if addresses.is_empty() { &all } else { addresses };
        let mut wanted = BTreeMap::new();
        for check in checks {
            wanted.extend(addresses.iter().map(|address| (SocketAddr::new(*address, check.port), check)));
        }
        self.servers.retain(|at, _| wanted.contains_key(at));
        let mut failed = BTreeMap::new();
        for (at, check) in wanted {
            if let Some(server) = self.servers.get(&at) {
                server.answer.send_if_modified(|answer| {
                    let changed = answer != check;
                    answer.clone_from(check);
                    changed
                });
                continue;
            }
            match self.serve(at, check) {
                Ok(server) => {
                    info!("healthCheckNodePort {} of service {} is answered", check.port, check.service);
                    self.servers.insert(at, server);
                }
                Err(error) => {
                    let why = why(at, check, &error);
                    if self.failed.get(&at) != Some(&why) {
                        error!("{why}");
                    }
                    failed.insert(at, why);
                }
            }
        }
        self.failed = failed;
    }

    /// What is not answered, and why.
    pub fn problems(&self) -> Vec<String> {
        self.failed.values().cloned().collect()
    }

    fn serve(&mut self, at: SocketAddr, check: &HealthCheck) -> io::Result<Server> {
        let bound = bind(at)?;
        let runtime = match &mut self.runtime {
            Some(runtime) => runtime,
            none => {
                let mut builder = Builder::new_multi_thread();
                none.insert(builder.worker_threads(1).thread_name("health-checks").enable_all().build()?)
            }
        };
        let listener = {
            let _of_that_thread = runtime.enter();
            TcpListener::from_std(bound)?
        };
        let (answer, answers) = watch::channel(check.clone());
        Ok(Server { answer, task: runtime.spawn(serve(listener, answers)).abort_handle() })
    }
}

impl Drop for HealthChecks {
    fn drop(&mut self) {
        // Waiting for its thread is not allowed where the agent's loop is.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl HealthCheck {
    /// As kube-proxy's `hcHandler`.
    fn response(&self) -> Response<Full<Bytes>> {
        let HealthCheck { service, endpoints, .. } = self;
        let body = serde_json::json!({
            "service": {"namespace": service.namespace, "name": service.name},
            "localEndpoints": endpoints,
            "serviceProxyHealthy": true,
        });
        let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
        if *endpoints == 0 {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, "application/json".parse().expect("a header's value"));
        headers.insert("x-content-type-options", "nosniff".parse().expect("a header's value"));
        headers.insert("x-load-balancing-endpoint-weight", (*endpoints).into());
        response
    }
}

/// Listens there; at all addresses also where there is no IPv6.
fn bind(at: SocketAddr) -> io::Result<Bound> {
    let bound = match Bound::bind(at) {
        Err(error) if at.ip() == Ipv6Addr::UNSPECIFIED && error.kind() != io::ErrorKind::AddrInUse => {
            Bound::bind((Ipv4Addr::UNSPECIFIED, at.port()))?
        }
        bound => bound?,
    };
    bound.set_nonblocking(true)?;
    Ok(bound)
}

fn why(at: SocketAddr, check: &HealthCheck, error: &io::Error) -> String {
    let holder = (error.kind() == io::ErrorKind::AddrInUse)
        .then(|| PortConflicts::now().holder_of(Protocol::Tcp, at.port()))
        .flatten();
    let HealthCheck { service, port, .. } = check;
    let reason = match holder {
        Some(holder) => format!("{holder} listens there; stop it, or take another port"),
        None => format!("{error}; trying again"),
    };
    format!("healthCheckNodePort {port} of service {service} is not answered: {reason}")
}

/// Answers until it is aborted.
async fn serve(listener: TcpListener, answers: watch::Receiver<HealthCheck>) {
    let mut connections = JoinSet::new();
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    open.retain(|connection| !connection.is_finished());
                    if open.len() >= MOST && let Some(oldest) = open.pop_front() {
                        oldest.abort();
                    }
                    open.push_back(connections.spawn(timeout(PATIENCE, answer(stream, answers.clone()))));
                }
                // The process has too many files open.
                Err(_) => sleep(Duration::from_millis(100)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One request, whatever it is for.
async fn answer(stream: TcpStream, answers: watch::Receiver<HealthCheck>) {
    let respond = service_fn(|_: Request<Incoming>| {
        let response = answers.borrow().response();
        async { Ok::<_, Infallible>(response) }
    });
    let mut connection = http1::Builder::new();
    connection.timer(TokioTimer::new()).header_read_timeout(PATIENCE).keep_alive(false).max_buf_size(HEADERS);
    // Who has gone needs no answer.
    let _ = connection.serve_connection(TokioIo::new(stream), respond).await;
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpStream,
        time::Instant,
    };

    use super::*;

    fn check(port: u16, endpoints: usize) -> HealthCheck {
        HealthCheck { service: ServiceName { namespace: "shop".into(), name: "web".into() }, port, endpoints }
    }

    fn free_port() -> u16 {
        Bound::bind("127.0.0.1:0").and_then(|bound| bound.local_addr()).expect("a port").port()
    }

    fn ask(port: u16) -> io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn answers_as_kube_proxy() {
        let port = free_port();
        let mut checks = HealthChecks::default();
        for (endpoints, status) in [(2, "200 OK"), (0, "503 Service Unavailable"), (1, "200 OK")] {
            checks.follow(&[check(port, endpoints)], &[]);
            let text = ask(port).expect("an answer");
            let (head, body) = text.split_once("\r\n\r\n").expect("a body");
            assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{head}");
            assert!(head.contains(&format!("x-load-balancing-endpoint-weight: {endpoints}\r\n")), "{head}");
            assert!(head.contains("content-type: application/json\r\n"), "{head}");
            let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
            let expected = serde_json::json!({
                "service": {"namespace": "shop", "name": "web"},
                "localEndpoints": endpoints,
                "serviceProxyHealthy": true,
            });
            assert_eq!(body, expected);
        }
        assert_eq!(checks.problems(), [""; 0]);
        checks.follow(&[], &[]);
        while ask(port).is_ok() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_port_that_another_process_has() {
        let holder = Bound::bind("127.0.0.1:0").expect("a port");
        let port = holder.local_addr().expect("bound").port();
        let address = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let mut checks = HealthChecks::default();
        checks.follow(&[check(port, 1)], &address);
        let said = checks.problems();
        let expected = format!("healthCheckNodePort {port} of service shop/web is not answered: ");
        let process = format!("(process {}) listens there", std::process::id());
        assert!(said.len() == 1 && said[0].starts_with(&expected) && said[0].contains(&process), "{said:?}");
        drop(holder);
        checks.follow(&[check(port, 1)], &address);
        assert_eq!(checks.problems(), [""; 0]);
        assert!(ask(port).expect("an answer").starts_with("HTTP/1.1 200 "));
    }

    #[test]
    fn who_says_nothing_keeps_nobody_from_an_answer() {
        let port = free_port();
        let mut checks = HealthChecks::default();
        checks.follow(&[check(port, 1)], &[]);
        let idle: Vec<TcpStream> =
            (0..3 * MOST).map(|_| TcpStream::connect(("127.0.0.1", port)).expect("a connection")).collect();
        let start = Instant::now();
        assert!(ask(port).expect("an answer").starts_with("HTTP/1.1 200 "));
        assert!(start.elapsed() < PATIENCE, "it waited for others");
        drop(idle);
    }
}
