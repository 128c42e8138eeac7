//! Reads the mails named on the command line and prints what they report: `cargo run --example read_mail -- FILE...`.
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use postwright_bounce::Limits;
use postwright_bounce::classify::Classifier;
use postwright_bounce::report::read;

fn main() -> std::io::Result<()> {
    let classifier = Classifier::built_in();
    for path in std::env::args_os().skip(1) {
        println!("{}: {:#?}", path.display(), read(&std::fs::read(&path)?, &classifier, &Limits::default()));
    }
    Ok(())
}
