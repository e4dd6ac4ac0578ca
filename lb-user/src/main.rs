//! lb
use lb_user::agent::{Options, options::Forward};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some("uninstall") {
        println!("{:?}", lb_user::agent::uninstall(&lb_user::maps::Pins::new("lab"), true)?);
        return Ok(());
    }
    lb_user::agent::run(Options {
        bridges: vec!["v-net-0".into()],
        uplinks: vec!["eth0".into()],
        config: args.next().unwrap().into(),
        forward: match args.next().as_deref() {
            Some("bridge") => Forward::Bridge,
            Some("stack") => Forward::Stack,
            Some("peer") => Forward::Peer,
            _ => Forward::Auto,
        },
        instance: "lab".into(),
        max_services: 16384,
        max_flows: 262144,
        clsact: std::env::var_os("CLSACT").is_some(),
    })
    .await
}
