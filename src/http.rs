//! Metrics and health over HTTP, for Prometheus and for whoever starts and stops nodes.
//!
//! * `/metrics`: everything in the registry, in the OpenMetrics text format.
//! * `/healthz`: the process runs and answers. Says nothing about the cluster: restarting a node because others are
//!   away would make it worse.
//! * `/readyz`: whether the node can serve clients, and if not, why (503).

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use std::fmt;
use std::io;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What Prometheus is told about the format.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Says why the node can't serve clients at the moment, if it can't. Called for every question; must not block.
pub type Readiness = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What is shown.
#[derive(Clone)]
pub struct Pages {
    /// The node's metrics.
    pub registry: Arc<Registry>,
    /// Whether it can serve clients.
    pub readiness: Readiness,
}

impl fmt::Debug for Pages {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Pages")
    }
}

/// Serves the pages until `stop` becomes true, or its sender is gone.
pub async fn serve(socket: TcpListener, pages: Pages, mut stop: watch::Receiver<bool>) -> io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readiness))
        .with_state(pages);
    let told = async move { drop(stop.wait_for(|stop| *stop).await) };
    axum::serve(socket, router).with_graceful_shutdown(told).await
}

/// Collecting asks for the state of every replica, which may block.
async fn metrics(State(pages): State<Pages>) -> Response {
    let encoded = tokio::task::spawn_blocking(move || {
        let mut shown = String::new();
        text::encode(&mut shown, &pages.registry).map(|()| shown)
    });
    match encoded.await {
        Ok(Ok(shown)) => ([(header::CONTENT_TYPE, OPEN_METRICS)], shown).into_response(),
        Ok(Err(error)) => failed(&error.to_string()),
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(problem: &str) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("the metrics cannot be shown: {problem}\n")).into_response()
}

async fn readiness(State(pages): State<Pages>) -> Response {
    match (pages.readiness)() {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn metrics_and_health_are_shown_until_told_to_stop() {
        let (metrics, registry) = Metrics::new(Arc::new(Default::default));
        metrics.elections.inc();
        let ready = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&ready);
        let readiness: Readiness = Arc::new(move || match asked.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err("no controller yet".to_owned()),
        });
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let pages = Pages { registry: Arc::new(registry), readiness };
        let serving = tokio::spawn(serve(socket, pages, stopped));

        let shown = ask(address, "/metrics").await;
        assert!(shown.starts_with("HTTP/1.1 200") && shown.contains("ackord_elections_total 1"), "{shown}");
        assert!(shown.contains(OPEN_METRICS));
        assert!(ask(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        let unready = ask(address, "/readyz").await;
        assert!(unready.starts_with("HTTP/1.1 503") && unready.contains("no controller yet"), "{unready}");
        ready.store(true, Ordering::Relaxed);
        assert!(ask(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        stop.send_replace(true);
        serving.await.unwrap().unwrap();
    }
}
