//! What this daemon measures of itself.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Bounds of the histograms of requests, in seconds: reads from memory take less than the first, a request that waits
/// for a guest more than the last.
const BOUNDS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
];

/// Methods that are told apart; others are counted as one, so that no client can make up new ones.
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabels {
    status: u16,
}

/// What this daemon measures of itself.
pub(crate) struct Instruments {
    registry: Registry,
    requests: Family<RequestLabels, Histogram, fn() -> Histogram>,
    answers: Family<AnswerLabels, Counter>,
    under_way: Gauge,
}

impl fmt::Debug for Instruments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Instruments")
    }
}

impl Default for Instruments {
    fn default() -> Instruments {
        let requests = Family::new_with_constructor((|| Histogram::new(BOUNDS)) as fn() -> Histogram);
        let answers = Family::default();
        let under_way = Gauge::default();
        let mut registry = Registry::default();
        registry.register(
            "pvc_api_request_duration_seconds",
            "How long requests took that this daemon answered",
            requests.clone(),
        );
        registry.register(
            "pvc_api_answers",
            "Requests that this daemon answered, by status",
            answers.clone(),
        );
        registry.register(
            "pvc_api_requests_under_way",
            "Requests that this daemon is answering",
            under_way.clone(),
        );
        Instruments {
            registry,
            requests,
            answers,
            under_way,
        }
    }
}

impl Instruments {
    /// A request has come; it is under way until the answer is dropped.
    pub(crate) fn begin(&self) -> UnderWay {
        self.under_way.inc();
        UnderWay(self.under_way.clone())
    }

    /// A request was answered. `route` is the pattern of its route, if it has one: never the path, of which there are
    /// as many as clients like.
    pub(crate) fn answered(&self, method: &str, route: Option<String>, status: u16, took: Duration) {
        let method = METHODS
            .into_iter()
            .find(|known| *known == method)
            .unwrap_or("other");
        self.requests
            .get_or_create(&RequestLabels {
                method,
                route: route.unwrap_or_else(|| "none".to_owned()),
            })
            .observe(took.as_secs_f64());
        self.answers.get_or_create(&AnswerLabels { status }).inc();
    }

    /// The text for Prometheus.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a text can not fail.
        let _ = encode_registry(&mut text, &self.registry);
        text
    }
}

/// A request that is under way.
#[derive(Debug)]
pub(crate) struct UnderWay(Gauge);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_route_and_status() {
        let instruments = Instruments::default();
        let under_way = instruments.begin();
        instruments.answered(
            "GET",
            Some("/api/v1/vm/{vm}".to_owned()),
            200,
            Duration::from_millis(3),
        );
        instruments.answered("BREW", None, 404, Duration::from_secs(9));
        let text = instruments.text();
        for line in [
            "pvc_api_request_duration_seconds_bucket{le=\"0.005\",method=\"GET\",route=\"/api/v1/vm/{vm}\"} 1",
            "pvc_api_request_duration_seconds_count{method=\"other\",route=\"none\"} 1",
            "pvc_api_answers_total{status=\"404\"} 1",
            "pvc_api_requests_under_way 1",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        assert!(!text.contains("# EOF"), "it is put together with others");
        drop(under_way);
        assert!(instruments.text().contains("pvc_api_requests_under_way 0"));
    }
}
