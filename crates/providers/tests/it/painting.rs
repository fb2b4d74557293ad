//! What is asked of Ideogram, and what the caller gets.

use crate::support::{Steps, config, paint, paint_watched, plan, refused};
use domain::catalogue::{Mode, Scheduler};
use domain::quantity::Size;
use engine::{EngineError, Fit, Plan};
use imaging::Picture;
use providers::ideogram::RenderingSpeed;
use testkit::ideogram::{IdeogramServer, KEY, Turn};

#[tokio::test]
async fn a_call_says_what_the_plan_says() {
    let server = IdeogramServer::start().await;
    let config = providers::ideogram::IdeogramConfig { rendering_speed: RenderingSpeed::Turbo, ..config(&server) };
    let prompt = "Häfen \"bei\" Nacht\r\n--and a second line \u{1f303}".to_owned();
    let plan = Plan {
        prompt: prompt.clone(),
        negative_prompt: Some("fog".to_owned()),
        strength: Some(0.35),
        batch: 3,
        seed: u64::MAX - 5,
        ..plan()
    };
    let (outcome, steps) = paint_watched(config, plan, Steps::default()).await;
    let output = outcome.unwrap();
    assert_eq!(output.images.len(), 3);
    assert!(output.images.iter().all(|picture| picture.size() == Size::new(1024, 1024)));
    assert_eq!((output.withheld, output.model.as_str()), (vec![false; 3], "ideogram-remix"));
    assert_eq!(steps.told, [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]);

    let [call] = &server.calls()[..] else { panic!("one call for all three") };
    assert_eq!(call.path, "/v1/ideogram-v3/remix");
    assert_eq!(call.headers["api-key"], KEY);
    assert!(!call.headers.contains_key("authorization") && !call.headers.contains_key("expect"));
    let names: Vec<&str> = call.parts.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "image",
            "prompt",
            "image_weight",
            "resolution",
            "num_images",
            "seed",
            "rendering_speed",
            "magic_prompt",
            "negative_prompt"
        ]
    );
    let text = |name| call.text(name).unwrap();
    assert_eq!((text("prompt"), text("negative_prompt")), (prompt, "fog".to_owned()));
    let rest = ["image_weight", "resolution", "num_images", "seed", "rendering_speed", "magic_prompt"].map(text);
    assert_eq!(rest, ["65", "1024x1024", "3", "2147483642", "TURBO", "OFF"]);
    let image = call.image();
    assert_eq!((image.file_name.as_deref(), image.media_type.as_deref()), (Some("reference.png"), Some("image/png")));
    assert_eq!(imaging::decode(&image.bytes).unwrap(), Picture::filled(Size::new(1024, 1024), [200, 80, 40]));
}

#[tokio::test]
async fn each_size_of_the_contract_is_painted_at_the_nearest_shape_and_comes_as_asked() {
    let server = IdeogramServer::start().await;
    let sizes = [
        ((720, 1280), "736x1312"),
        ((960, 1280), "864x1152"),
        ((1024, 1024), "1024x1024"),
        ((1280, 960), "1152x864"),
        ((1280, 720), "1312x736"),
    ];
    for ((width, height), resolution) in sizes {
        let size = Size::new(width, height);
        let output = paint(config(&server), Plan { size: Some(size), ..plan() }).await.unwrap();
        assert_eq!((output.images[0].size(), output.effective.size), (size, size));
        let call = server.calls().pop().unwrap();
        assert_eq!(call.text("resolution").unwrap(), resolution);
        assert_eq!(imaging::probe(&call.image().bytes).unwrap().size.to_string(), resolution, "cut to shape by us");
    }
    let output = paint(config(&server), Plan { size: None, ..plan() }).await.unwrap();
    assert_eq!(output.images[0].size(), Size::new(640, 480), "the reference's own");
}

#[tokio::test]
async fn the_reference_is_cut_or_stretched_as_the_plan_wants() {
    let server = IdeogramServer::start().await;
    // Red, green and blue side by side: a square cut of its middle is green alone.
    let colors = |x: u32| [[255, 0, 0], [0, 255, 0], [0, 0, 255]][(x / 100) as usize];
    let pixels = (0..100).flat_map(|_| (0..300).flat_map(colors)).collect();
    let source = Picture::new(Size::new(300, 100), pixels).unwrap();
    for (fit, expect) in [(Fit::Cover, [0, 255, 0]), (Fit::Stretch, [255, 0, 0])] {
        paint(config(&server), Plan { source: Some(source.clone()), fit, ..plan() }).await.unwrap();
        let sent = imaging::decode(&server.calls().pop().unwrap().image().bytes).unwrap();
        let corner: Vec<i32> = sent.pixels()[3 * 20..3 * 21].iter().map(|value| i32::from(*value)).collect();
        let off = corner.iter().zip(expect).map(|(value, expect)| (value - expect).abs()).max().unwrap();
        assert!(off < 8, "{fit:?}: {corner:?}");
    }
}

#[tokio::test]
async fn strength_nought_returns_the_reference_and_asks_nobody() {
    let server = IdeogramServer::start().await;
    let size = Size::new(960, 1280);
    let output = paint(config(&server), Plan { strength: Some(0.0), batch: 2, size: Some(size), ..plan() });
    let output = output.await.unwrap();
    assert_eq!(output.images, vec![Picture::filled(size, [200, 80, 40]); 2]);
    assert_eq!((server.calls().len(), output.effective.strength), (0, 0.0));
    for (strength, weight) in [(0.001, "100"), (0.7, "30"), (1.0, "1")] {
        paint(config(&server), Plan { strength: Some(strength), ..plan() }).await.unwrap();
        assert_eq!(server.calls().pop().unwrap().text("image_weight").unwrap(), weight, "{strength}");
    }
    paint(config(&server), Plan { strength: None, ..plan() }).await.unwrap();
    assert_eq!(server.calls().pop().unwrap().text("image_weight").unwrap(), "30", "the default");
}

#[tokio::test]
async fn what_means_nothing_there_is_told_and_not_sent() {
    let server = IdeogramServer::start().await;
    let given = Plan {
        guidance_scale: Some(7.0),
        steps: Some(30),
        true_cfg_scale: Some(2.0),
        prompt_2: Some("second".to_owned()),
        max_sequence_length: Some(256),
        scheduler: Some(Scheduler::Euler),
        control_image: Some(Picture::filled(Size::new(8, 8), [0; 3])),
        negative_prompt: Some(String::new()),
        ..plan()
    };
    let output = paint(config(&server), given).await.unwrap();
    assert_eq!(
        output.ignored,
        [
            "guidance_scale",
            "num_inference_steps",
            "true_cfg_scale",
            "prompt_2",
            "max_sequence_length",
            "scheduler",
            "control_image"
        ]
    );
    assert_eq!(server.calls()[0].parts.len(), 8, "nor an empty negative prompt");
    assert!(paint(config(&server), plan()).await.unwrap().ignored.is_empty());
}

#[tokio::test]
async fn a_picture_that_is_withheld_is_black_and_told() {
    let server = IdeogramServer::start().await;
    let link = || Some(format!("{}/painted/0/1024x1024.png", server.url()));
    server.next([Turn::Link(vec![link(), None, link()])]);
    let output = paint(config(&server), Plan { batch: 3, ..plan() }).await.unwrap();
    assert_eq!(output.withheld, [false, true, false]);
    assert_eq!(output.images[1], Picture::filled(Size::new(1024, 1024), [0; 3]));
    assert_ne!(output.images[0], output.images[1]);
    server.next([Turn::Link(vec![None, None])]);
    let error = refused(paint(config(&server), Plan { batch: 2, ..plan() }).await);
    assert!(matches!(&error, EngineError::Unsafe(why) if why.contains("every picture")), "{error}");
}

#[tokio::test]
async fn a_plan_that_no_call_could_paint_is_refused_without_one() {
    let server = IdeogramServer::start().await;
    let cases = [
        (Plan { batch: 9, ..plan() }, "batch: got 9; allowed: 1 to 8"),
        (Plan { batch: 0, ..plan() }, "batch: got 0"),
        (Plan { strength: Some(1.5), ..plan() }, "strength: got 1.5; allowed: a number from 0 to 1"),
        (Plan { strength: Some(f64::NAN), ..plan() }, "strength: got NaN"),
        (Plan { source: None, ..plan() }, "image:"),
        (Plan { size: Some(Size::new(0, 8)), ..plan() }, "width x height"),
        (Plan { size: Some(Size::new(9000, 9000)), ..plan() }, "width x height"),
        (Plan { mode: Mode::Canny, ..plan() }, "knows no other mode"),
    ];
    for (plan, why) in cases {
        let error = refused(paint(config(&server), plan).await);
        assert!(matches!(&error, EngineError::Refused(told) if told.contains(why)), "{why}: {error}");
    }
    assert!(server.calls().is_empty());
}
