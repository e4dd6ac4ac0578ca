use std::os::unix::fs::symlink;

use super::*;
use crate::sources::file::tests::Directory;

/// What a step of a test must bring.
async fn expect(receiver: &mut mpsc::Receiver<()>, change: bool, step: &str) {
    let patience = if change { Duration::from_secs(10) } else { Duration::from_millis(400) };
    let got = tokio::time::timeout(patience, receiver.recv()).await;
    assert_eq!(got.is_ok(), change, "{step}");
}

#[tokio::test]
async fn a_file_that_is_written_renamed_over_and_removed() {
    let directory = Directory::new("watch-file");
    let file = directory.write("services.yaml", "a");
    let mut receiver = watch(&file).expect("a watch");
    expect(&mut receiver, false, "nothing happened").await;

    for text in ["b", "c", "d"] {
        directory.write("services.yaml", text);
    }
    expect(&mut receiver, true, "written in place").await;
    expect(&mut receiver, false, "three writes are one change").await;

    fs::read(&file).expect("the file");
    directory.write("other.yaml", "x");
    expect(&mut receiver, false, "read, and another file written").await;

    let new = directory.write("services.yaml.new", "e");
    fs::rename(new, &file).expect("a rename");
    expect(&mut receiver, true, "renamed over").await;
    directory.write("services.yaml", "f");
    expect(&mut receiver, true, "written after a rename").await;
    fs::remove_file(&file).expect("a removal");
    expect(&mut receiver, true, "removed").await;
    directory.write("services.yaml", "g");
    expect(&mut receiver, true, "back again").await;
}

#[tokio::test]
async fn a_directory_gains_changes_and_loses_files() {
    let directory = Directory::new("watch-directory");
    let inside = directory.0.join("conf.d");
    fs::create_dir(&inside).expect("a directory");
    let mut receiver = watch(&inside).expect("a watch");
    let file = inside.join("a.yaml");
    fs::write(&file, "a").expect("a write");
    expect(&mut receiver, true, "a new file").await;
    fs::write(inside.join("notes.txt"), "a").expect("a write");
    expect(&mut receiver, false, "no config file").await;
    fs::remove_file(&file).expect("a removal");
    expect(&mut receiver, true, "a file less").await;

    fs::remove_dir_all(&inside).expect("a removal");
    fs::create_dir(&inside).expect("a directory");
    // The directory is watched again once its return has been noticed.
    tokio::time::sleep(Duration::from_millis(200)).await;
    fs::write(&file, "b").expect("a write");
    expect(&mut receiver, true, "a file in the directory that was made anew").await;
}

#[tokio::test]
async fn a_configmap_swaps_its_data_link() {
    let directory = Directory::new("watch-configmap");
    let volume = |version: &str| {
        fs::create_dir(directory.0.join(version)).expect("a directory");
        fs::write(directory.0.join(version).join("services.yaml"), "same size").expect("a write");
        symlink(version, directory.0.join("..data_tmp")).expect("a link");
        fs::rename(directory.0.join("..data_tmp"), directory.0.join("..data")).expect("a rename");
    };
    volume("..1");
    let file = directory.0.join("services.yaml");
    symlink("..data/services.yaml", &file).expect("a link");
    let elsewhere = Directory::new("watch-configmap-link");
    let link = elsewhere.0.join("linked.yaml");
    symlink(&file, &link).expect("a link");

    let mut receivers = [&file, &directory.0, &link].map(|path| watch(path).expect("a watch"));
    for (old, new) in [("..1", "..2"), ("..2", "..3")] {
        volume(new);
        fs::remove_dir_all(directory.0.join(old)).expect("a removal");
        for (receiver, path) in receivers.iter_mut().zip(["file", "directory", "link"]) {
            expect(receiver, true, &format!("{path}: {old} to {new}")).await;
        }
    }
}

#[tokio::test]
async fn a_directory_that_is_made_again() {
    let directory = Directory::new("watch-again");
    let inside = directory.0.join("etc/lb");
    let file = inside.join("services.yaml");
    let mut receiver = watch(&file).expect("a watch");
    for round in ["made", "made again", "and again"] {
        fs::create_dir_all(&inside).expect("a directory");
        fs::write(&file, round).expect("a write");
        expect(&mut receiver, true, round).await;
        fs::write(&file, format!("{round}, changed")).expect("a write");
        expect(&mut receiver, true, &format!("{round}, changed")).await;
        fs::remove_dir_all(directory.0.join("etc")).expect("a removal");
        expect(&mut receiver, true, "removed").await;
        expect(&mut receiver, false, "nothing happened").await;
    }
}
