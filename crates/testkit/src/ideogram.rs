//! A server on the loopback interface that speaks Ideogram's remix API as strictly as the real one, or as badly as a
//! test asks.

use crate::form::{Part, parts};
use crate::pictures::{http_answer, png};
use domain::quantity::Size;
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub const KEY: &str = "sesame-4711-open";
const REMIX: &str = "/v1/ideogram-v3/remix";
const IMAGE_BYTES_MAX: usize = 10_000_000;
/// Every shape that a test meets; the API's own list is longer.
const RESOLUTIONS: [&str; 8] =
    ["1024x1024", "736x1312", "1312x736", "864x1152", "1152x864", "1536x512", "512x1536", "1280x800"];

/// How the server meets one call.
#[derive(Clone)]
pub enum Turn {
    /// Checks the request and paints it.
    Paint,
    /// The same, after a while.
    PaintAfter(Duration),
    /// Checks the request and answers with these links; `None` is a picture that is not safe.
    Link(Vec<Option<String>>),
    /// A whole answer or a part of one, head and all, after the request was read.
    Say(Vec<u8>),
    /// Closes after so many bytes of the body; what was not read makes the connection break.
    HangUpAfter(usize),
}

/// One call as it came.
#[derive(Clone, Debug)]
pub struct RemixCall {
    pub path: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    pub parts: Vec<Part>,
}

impl RemixCall {
    /// A field as text.
    pub fn text(&self, name: &str) -> Option<String> {
        let part = self.parts.iter().find(|part| part.name == name)?;
        Some(String::from_utf8(part.bytes.clone()).expect("a field is text"))
    }

    #[track_caller]
    pub fn image(&self) -> &Part {
        self.parts.iter().find(|part| part.name == "image").expect("a call brings a picture")
    }
}

#[derive(Default)]
struct State {
    turns: VecDeque<Turn>,
    calls: Vec<RemixCall>,
    /// Answers to `GET`, each in its turn, the last again and again.
    results: HashMap<String, VecDeque<Vec<u8>>>,
    n_results_served: usize,
}

/// Paints unless it is told otherwise.
#[derive(Clone)]
pub struct IdeogramServer {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl IdeogramServer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback interface has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let server = Self { address, state: Arc::default() };
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = serving.clone();
                tokio::spawn(async move { server.answer(stream).await });
            }
        });
        server
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What happens to the next calls, in order.
    pub fn next(&self, turns: impl IntoIterator<Item = Turn>) {
        self.state().turns.extend(turns);
    }

    /// What a link answers, each whole answer in its turn, the last again and again.
    pub fn serve(&self, path: &str, answers: impl IntoIterator<Item = Vec<u8>>) -> String {
        self.state().results.insert(path.to_owned(), answers.into_iter().collect());
        format!("{}{path}", self.url())
    }

    pub fn calls(&self) -> Vec<RemixCall> {
        self.state().calls.clone()
    }

    pub fn n_results_served(&self) -> usize {
        self.state().n_results_served
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds this")
    }

    async fn answer(&self, mut stream: TcpStream) {
        let Some(head) = read_head(&mut stream).await else { return };
        let mut words = head.lines().next().unwrap_or_default().split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().to_owned());
        if method == "GET" {
            let answer = self.result(&path);
            let _ = stream.write_all(&answer).await;
            return;
        }
        let turn = self.state().turns.pop_front().unwrap_or(Turn::Paint);
        let headers: HashMap<String, String> = head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let n_bytes: usize = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or_default();
        let n_read = if let Turn::HangUpAfter(n_read) = turn { n_read.min(n_bytes) } else { n_bytes };
        let mut body = vec![0; n_read];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let boundary = headers.get("content-type").and_then(|kind| kind.strip_prefix("multipart/form-data; boundary="));
        let parts = boundary.and_then(|boundary| parts(&body, boundary));
        let call = RemixCall { path, headers, parts: parts.unwrap_or_default() };
        self.state().calls.push(call.clone());
        if let Turn::PaintAfter(pause) = turn {
            tokio::time::sleep(pause).await;
        }
        // Whoever does not listen to the end has its reasons.
        let _ = stream.write_all(&self.say(turn, &call)).await;
    }

    fn say(&self, turn: Turn, call: &RemixCall) -> Vec<u8> {
        let refusal = |(status, why): (&str, String)| json_answer(status, &json!({"error": why}));
        match (turn, check(call)) {
            (Turn::Say(bytes), _) => bytes,
            (Turn::HangUpAfter(_), _) => Vec::new(),
            (_, Err(wrong)) => refusal(wrong),
            (Turn::Link(links), Ok(asked)) => json_answer("200 OK", &painted(&links, &asked)),
            (Turn::Paint | Turn::PaintAfter(_), Ok(asked)) => {
                let link = |idx| Some(format!("{}/painted/{idx}/{}.png?exp=1&sig=2", self.url(), asked.resolution));
                let links: Vec<Option<String>> = (0..asked.n_images).map(link).collect();
                json_answer("200 OK", &painted(&links, &asked))
            }
        }
    }

    fn result(&self, path: &str) -> Vec<u8> {
        let mut state = self.state();
        state.n_results_served += 1;
        if let Some(answers) = state.results.get_mut(path) {
            let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
            return answer.unwrap_or_default();
        }
        let size = path.strip_prefix("/painted/").and_then(|rest| {
            let (sides, _) = rest.split_once('/')?.1.split_once(".png")?;
            let (width, height) = sides.split_once('x')?;
            Some(Size::new(width.parse().ok()?, height.parse().ok()?))
        });
        match size {
            Some(size) => http_answer("200 OK", "image/png", &png(size)),
            None => http_answer("404 Not Found", "text/plain", b"expired"),
        }
    }
}

/// A whole answer of JSON.
pub fn json_answer(status: &str, body: &Value) -> Vec<u8> {
    http_answer(status, "application/json", body.to_string().as_bytes())
}

/// A whole answer of an error, with one more header line.
pub fn error_answer(status: &str, header: &str) -> Vec<u8> {
    let body = r#"{"error": "no"}"#;
    let length = body.len();
    let head = format!("content-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n{header}");
    format!("HTTP/1.1 {status}\r\n{head}\r\n{body}").into_bytes()
}

struct Asked {
    n_images: u32,
    resolution: String,
    prompt: String,
    seed: u32,
}

fn painted(links: &[Option<String>], asked: &Asked) -> Value {
    let image = |(idx, link): (u32, &Option<String>)| {
        json!({
            "prompt": asked.prompt, "resolution": asked.resolution, "seed": asked.seed + idx, "style_type": "GENERAL",
            "is_image_safe": link.is_some(), "url": link,
        })
    };
    let data: Vec<Value> = (0..).zip(links).map(image).collect();
    json!({"created": "2000-01-23T04:56:07+00:00", "data": data})
}

/// The API's own rules; otherwise a status and what is wrong.
fn check(call: &RemixCall) -> Result<Asked, (&'static str, String)> {
    let bad = |why: String| ("400 Bad Request", why);
    if call.path != REMIX {
        return Err(("404 Not Found", "no such endpoint".to_owned()));
    }
    if call.headers.get("api-key").map(String::as_str) != Some(KEY) {
        return Err(("401 Unauthorized", "no such key".to_owned()));
    }
    let known = [
        "image",
        "prompt",
        "image_weight",
        "seed",
        "resolution",
        "aspect_ratio",
        "rendering_speed",
        "magic_prompt",
        "negative_prompt",
        "num_images",
    ];
    for (idx, part) in call.parts.iter().enumerate() {
        let is_twice = call.parts[..idx].iter().any(|earlier| earlier.name == part.name);
        if is_twice || !known.contains(&part.name.as_str()) {
            return Err(bad(format!("{} is unknown, or there twice", part.name)));
        }
    }
    check_image(call).map_err(bad)?;
    let number = |name: &str, min: u32, max: u32| {
        let value = call.text(name).unwrap_or_else(|| min.to_string()).parse::<u32>();
        value.ok().filter(|value| (min..=max).contains(value)).ok_or_else(|| bad(format!("{name} is out of range")))
    };
    let one_of = |name: &str, allowed: &[&str]| {
        let value = call.text(name).unwrap_or_else(|| allowed[0].to_owned());
        if allowed.contains(&value.as_str()) { Ok(value) } else { Err(bad(format!("{name} is not listed"))) }
    };
    number("image_weight", 1, 100)?;
    one_of("rendering_speed", &["DEFAULT", "FLASH", "TURBO", "QUALITY"])?;
    one_of("magic_prompt", &["AUTO", "ON", "OFF"])?;
    if call.text("aspect_ratio").is_some() && call.text("resolution").is_some() {
        return Err(bad("aspect_ratio and resolution exclude each other".to_owned()));
    }
    let prompt = call.text("prompt").filter(|prompt| !prompt.is_empty()).ok_or_else(|| bad("prompt".to_owned()))?;
    Ok(Asked {
        n_images: number("num_images", 1, 8)?,
        resolution: one_of("resolution", &RESOLUTIONS)?,
        prompt,
        seed: number("seed", 0, i32::MAX.unsigned_abs())?,
    })
}

fn check_image(call: &RemixCall) -> Result<(), String> {
    let image = call.parts.iter().find(|part| part.name == "image").ok_or("image is missing")?;
    if image.bytes.len() > IMAGE_BYTES_MAX || image.file_name.is_none() {
        return Err("image is no file of at most 10 MB".to_owned());
    }
    let header = imaging::probe(&image.bytes).map_err(|error| error.to_string())?;
    let told = image.media_type.clone().unwrap_or_default();
    let is_taken = ["image/png", "image/jpeg", "image/webp"].contains(&told.as_str());
    if is_taken && told.ends_with(&header.format.to_string().to_ascii_lowercase()) {
        Ok(())
    } else {
        Err(format!("image is {} and said to be {told}", header.format))
    }
}

async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}
