//! What comes of a task when all goes well.

use crate::support::Bench;
use domain::id::{AppId, BlobKey};
use domain::quantity::{Batch, GuidanceScale, Size, Steps};
use domain::request::{GenerationRequest, InferenceType, OutputFormat};
use domain::task::Progress;
use std::collections::HashSet;
use std::time::Duration;
use store::contract::TaskEvent;
use worker::Ownership;

#[tokio::test]
async fn a_batch_becomes_pictures_and_thumbnails() {
    let bench = Bench::new();
    let worker = bench.start(Ownership::Sole);
    let mut n_files = 0;
    for (n, format) in (1..).zip(OutputFormat::ALL) {
        let id = bench
            .submit(n, |request| {
                request.batch = Batch::new(3).unwrap();
                request.size = Some(Size::new(600, 300));
                request.output_format = format;
                request.ignored = vec!["width".to_owned()];
            })
            .await;
        let painting = bench.painting(&id).await;
        assert_eq!((painting.images.len(), painting.model.as_str()), (3, "model-1"));
        assert_eq!(painting.ignored, ["width", "negative_prompt"]);
        let mut keys = HashSet::new();
        for painted in &painting.images {
            let image = imaging::decode(&bench.blob(&painted.image).await).unwrap();
            let thumbnail = imaging::decode(&bench.blob(&painted.thumbnail).await).unwrap();
            assert_eq!((image.size(), thumbnail.size()), (Size::new(600, 300), Size::new(256, 128)));
            let (image, thumbnail) = (painted.image.as_str(), painted.thumbnail.as_str());
            let is_named =
                |key: &str, prefix, suffix| key.len() > 34 && key.starts_with(prefix) && key.ends_with(suffix);
            assert!(is_named(image, "r-", format.as_str()), "{image}");
            assert!(is_named(thumbnail, "t-", "jpeg"), "{thumbnail}");
            let random_part = |key: &str| key[2..34].to_owned();
            assert!(keys.insert(random_part(image)) && keys.insert(random_part(thumbnail)));
            n_files += 2;
        }
        assert_eq!(bench.n_result_files(), n_files);
    }
    worker.stop().await;
}

#[tokio::test]
async fn what_was_asked_for_in_vain_is_named_and_a_default_is_not() {
    let bench = Bench::new();
    let worker = bench.start(Ownership::Sole);
    for (n, guidance_scale, expect) in
        [(1, 3.5, &["negative_prompt"][..]), (2, 5.0, &["negative_prompt", "guidance_scale"])]
    {
        let change =
            |request: &mut GenerationRequest| request.guidance_scale = GuidanceScale::new(guidance_scale).unwrap();
        let id = bench.submit(n, change).await;
        assert_eq!(bench.painting(&id).await.ignored, expect);
    }
    worker.stop().await;
}

#[tokio::test]
async fn the_same_request_and_seed_give_the_same_bytes() {
    let bench = Bench::new();
    let worker = bench.start(Ownership::Sole);
    let mut files = Vec::new();
    for (n, seed) in [(1, 7), (2, 7), (3, 8)] {
        let id = bench.submit(n, |request| request.seed = seed).await;
        let painting = bench.painting(&id).await;
        files.push(bench.blob(&painting.images[0].image).await);
    }
    assert!(files[0] == files[1] && files[0] != files[2]);
    worker.stop().await;
}

#[tokio::test]
async fn a_picture_that_was_withheld_is_told_apart() {
    let bench = Bench::new();
    let worker = bench.start(Ownership::Sole);
    let withheld = |n: u8, prompt: &'static str| {
        let bench = &bench;
        async move {
            let change = |request: &mut domain::request::GenerationRequest| {
                request.prompt = prompt.to_owned();
                request.batch = Batch::new(2).unwrap();
            };
            let id = bench.submit(n, change).await;
            bench.painting(&id).await.images.iter().map(|painted| painted.withheld).collect::<Vec<_>>()
        }
    };
    assert_eq!(withheld(1, "withhold please").await, [false, true]);
    assert_eq!(withheld(2, "a cat").await, [false, false], "nobody looked");
    worker.stop().await;
}

#[tokio::test]
async fn no_picture_tells_its_prompt() {
    let bench = Bench::new();
    let worker = bench.start(Ownership::Sole);
    for (n, format) in (1..).zip(OutputFormat::ALL) {
        let id = bench
            .submit(n, |request| {
                request.prompt = "xyzzy plugh".to_owned();
                request.output_format = format;
            })
            .await;
        let painting = bench.painting(&id).await;
        let file = bench.blob(&painting.images[0].image).await;
        assert!(!file.windows(5).any(|window| window == b"xyzzy"));
    }
    worker.stop().await;
}

#[tokio::test]
async fn steps_are_told_while_they_happen_and_times_are_measured() {
    let bench = Bench::with_steps_of(Duration::from_millis(30));
    let mut news = bench.stores.events.subscribe();
    let id = bench.submit(1, |request| request.steps = Steps::new(5).unwrap()).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    let worker = bench.start(Ownership::Sole);
    let painting = bench.painting(&id).await;
    assert!((0.06..30.0).contains(&painting.startup_s), "{}", painting.startup_s);
    assert!((0.15..30.0).contains(&painting.runtime_s), "{}", painting.runtime_s);
    let mut steps = Vec::new();
    while let Ok(event) = news.try_recv() {
        if let TaskEvent::Progress(task, progress) = event {
            assert_eq!(task, id);
            steps.push(progress);
        }
    }
    assert_eq!(steps, (1..=5).map(|step| Progress { step, n_steps: 5 }).collect::<Vec<_>>());
    worker.stop().await;
}

#[tokio::test]
async fn an_engine_stays_when_another_is_needed() {
    let bench = Bench::new();
    let worker = bench.start(Ownership::Sole);
    for (n, app) in (1..).zip(["app-1", "app-1", "app-2", "app-2", "app-1"]) {
        let id = bench.submit(n, |request| request.app = AppId::parse(app).unwrap()).await;
        bench.painting(&id).await;
    }
    assert_eq!(bench.engines.log().loads, ["model-1", "model-2"]);
    worker.stop().await;
}

#[tokio::test]
async fn a_task_whose_weights_are_absent_is_left_for_others() {
    let bench = Bench::new();
    let orphan = bench.submit(1, |request| request.app = AppId::parse("app-3").unwrap()).await;
    let worker = bench.start(Ownership::Sole);
    let served = bench.submit(2, |_| {}).await;
    bench.painting(&served).await;
    assert_eq!(bench.get(&orphan).await.attempt, 0);
    worker.stop().await;
}

#[tokio::test]
async fn a_task_of_a_class_that_is_not_offered_is_left_for_others() {
    let bench = Bench::new();
    let strong = bench.submit(1, |request| request.inference_type = Some(InferenceType::H100)).await;
    let worker = bench.start(Ownership::Sole);
    for (n, class) in [(2, Some(InferenceType::A100)), (3, None)] {
        let served = bench.submit(n, |request| request.inference_type = class).await;
        bench.painting(&served).await;
    }
    assert_eq!(bench.get(&strong).await.attempt, 0);
    worker.stop().await;
}

#[tokio::test]
async fn files_that_belong_to_no_task_are_swept_up() {
    let mut bench = Bench::new();
    bench.timing.keep_results = Duration::ZERO;
    bench.timing.left_over_after = Duration::from_millis(200);
    bench.timing.sweep_every = Duration::from_millis(50);
    bench.timing.purge_every = Duration::from_hours(1);
    let id = bench.submit(1, |_| {}).await;
    let worker = bench.start(Ownership::Sole);
    bench.painting(&id).await;
    let n_named = bench.n_result_files();
    let left_over = BlobKey::parse("r-left-over.png").unwrap();
    bench.stores.blobs.put(&left_over, bytes::Bytes::from_static(b"x")).await.unwrap();
    let begun = std::time::Instant::now();
    while bench.stores.blobs.get(&left_over).await.unwrap().is_some() {
        assert!(begun.elapsed() < Duration::from_secs(30), "never swept up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(bench.n_result_files(), n_named, "what a task names stays");
    worker.stop().await;
}

#[tokio::test]
async fn old_results_are_forgotten_with_their_files() {
    let mut bench = Bench::new();
    bench.timing.keep_results = Duration::ZERO;
    bench.timing.purge_every = Duration::from_millis(50);
    let worker = bench.start(Ownership::Sole);
    let id = bench.submit(1, |_| {}).await;
    let begun = std::time::Instant::now();
    while bench.stores.tasks.get(&id).await.unwrap().is_some() || bench.n_result_files() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "never forgotten");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    worker.stop().await;
}
