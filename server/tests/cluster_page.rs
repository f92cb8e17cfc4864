//! The status page in a real browser, over three real nodes.

mod cluster;

use std::time::Duration;

use cluster::browser::{Browser, chromium};
use cluster::{Cluster, Recipe, turn, within};

const LONG: Duration = Duration::from_secs(20);

/// Nothing sticks out of the screen: what is wider scrolls inside its own box.
fn assert_fits(browser: &mut Browser, width: u32) {
    let wide = browser.eval("document.documentElement.scrollWidth");
    assert!(
        wide.as_u64().is_some_and(|wide| wide <= u64::from(width)),
        "{wide} pixels on a screen of {width}"
    );
}

fn text(browser: &mut Browser, selector: &str) -> String {
    let expression = format!("document.querySelector({selector:?}).innerText");
    browser.eval(&expression).as_str().unwrap_or_default().to_owned()
}

/// What has the focus, by its id or its words; it must be seen that it has.
fn focused(browser: &mut Browser) -> String {
    let seen = browser.eval("getComputedStyle(document.activeElement).outlineStyle !== 'none'");
    assert_eq!(seen, true, "the focus is not seen");
    let name = browser.eval(
        "document.activeElement.id || document.activeElement.textContent || document.activeElement.className",
    );
    name.as_str().unwrap_or_default().to_owned()
}

/// Presses Tab until the focus is there.
fn tab_to(browser: &mut Browser, wanted: &str) {
    for _ in 0..20 {
        browser.press("Tab");
        if focused(browser) == wanted {
            return;
        }
    }
    panic!("the keyboard does not reach {wanted}");
}

#[test]
fn the_page_lives_and_shows_what_is_wrong() {
    // The story: somebody watches the page while nodes die and return, on a large screen and on a telephone, with
    // the mouse unplugged.
    let Some(program) = chromium() else {
        println!("skipped: no chromium here (apt-get install chromium)");
        return;
    };
    let _turn = turn();
    let mut cluster = Cluster::start(Recipe { groups: 12, ..Recipe::default() });
    let mut browser = Browser::start(&program, &cluster.dir().join("browser"));
    let url = format!("http://{}/", cluster.ports().admin(1));
    browser.look(1280, 900, "light");
    browser.open(&url);
    browser.until(LONG, "all is well", "document.querySelector('#badge').textContent === 'healthy'");
    assert_eq!(text(&mut browser, "#title"), "Pelago · test");
    assert_eq!(browser.eval("document.querySelectorAll('#map li').length"), 12);
    assert_eq!(browser.eval("document.querySelector('#alarms').hidden"), true);

    // It follows what clients do, through whichever node they do it.
    let mut client = cluster.client(3);
    within(LONG, "the plots show reads and writes", || {
        for n in 0..200 {
            client.say(&format!("PUT k{n} value")).map_err(|e| e.to_string())?;
            client.say(&format!("GET k{n}")).map_err(|e| e.to_string())?;
        }
        let plots = "['#throughput .read', '#throughput .write', '#latency .write', '#latency .p99'].every(s => document.querySelector(s)?.getAttribute('d')?.includes('L'))";
        let shown = browser.eval(plots);
        let label =
            browser.eval("document.querySelector('#throughput').getAttribute('aria-label')").to_string();
        if shown == true && !label.contains('–') { Ok(()) } else { Err(label) }
    });
    let tiles = text(&mut browser, "#tiles");
    assert!(tiles.contains("3 of 3") && tiles.contains("12 of 12"), "{tiles}");
    browser.until(
        LONG,
        "the keys are counted",
        "document.querySelector('#tiles').innerText.includes('Keys\\n200')",
    );

    // By keyboard: skip link, pause, table, filter.
    browser.press("Tab");
    assert_eq!(focused(&mut browser), "Skip to the status");
    tab_to(&mut browser, "pause");
    browser.press("Enter");
    assert_eq!(browser.eval("document.querySelector('#pause').getAttribute('aria-pressed')"), "true");
    assert_eq!(text(&mut browser, "#age"), "paused");
    browser.press("Space");
    browser.until(LONG, "it goes on", "document.querySelector('#age').textContent === 'live'");
    tab_to(&mut browser, "Table of groups");
    browser.press("Enter");
    browser.until(LONG, "the table is open", "document.querySelectorAll('#rows tr').length === 12");
    tab_to(&mut browser, "filter");
    browser.press("7");
    browser.until(
        LONG,
        "the group of that number and the one of that slot are left",
        "document.querySelector('#shown').textContent === '2 groups' && document.querySelectorAll('#rows tr').length === 2",
    );
    let rows = text(&mut browser, "#rows");
    assert!(rows.starts_with("0\t0–1365\tnode ") && rows.contains("\n7\t"), "{rows:?}");
    browser.eval("document.querySelector('#filter').value = ''; document.querySelector('#filter').dispatchEvent(new Event('input'))");

    browser.picture("wide-light");
    let light = browser.eval("getComputedStyle(document.body).backgroundColor");
    browser.look(1280, 900, "dark");
    assert_ne!(browser.eval("getComputedStyle(document.body).backgroundColor"), light, "dark is dark");
    browser.picture("wide-dark");
    browser.look(360, 740, "light");
    assert_fits(&mut browser, 360);
    browser.picture("phone-light");

    // One node dies: the page says so by itself, and who leads its groups now.
    cluster.kill(3);
    browser.until(
        LONG,
        "an alarm",
        "!document.querySelector('#alarms').hidden && document.querySelector('#alarms').innerText.includes('node 3')",
    );
    browser.until(
        LONG,
        "the card says it",
        "document.querySelector('#nodes .lost')?.innerText.includes('dead or cut off') === true",
    );
    browser.until(
        LONG,
        "its groups have other leaders",
        "[...document.querySelectorAll('#map li')].every(cell => /n[12]$/.test(cell.textContent))",
    );
    let place = "document.querySelector('#alarms').getBoundingClientRect().top < innerHeight / 2";
    assert_eq!(browser.eval(&format!("scrollTo(0, 0); {place}")), true, "alarms are at the top");
    assert!(browser.eval("document.title").to_string().contains("(1)"), "the tab says it too");
    assert_fits(&mut browser, 360);
    browser.picture("phone-light-alarm");
    browser.look(1280, 900, "light");
    browser.picture("wide-light-alarm");

    // Then the majority.
    cluster.kill(2);
    browser.until(LONG, "groups have no leader", "document.querySelectorAll('#map .lost').length === 12");
    browser.until(
        LONG,
        "and the alarms say why",
        "document.querySelector('#alarms').innerText.includes('1 of 3 members is alive')",
    );
    let alarms = browser.eval("document.querySelectorAll('#alarm-list li').length");
    assert!(alarms.as_u64().is_some_and(|n| n <= 6), "{alarms}: the same of twelve groups is said once");
    browser.look(360, 740, "dark");
    assert_fits(&mut browser, 360);
    browser.picture("phone-dark-alarm");

    cluster.run(2);
    cluster.run(3);
    browser.until(
        LONG,
        "all is well again",
        "document.querySelector('#alarms').hidden && document.querySelector('#tiles').innerText.includes('12 of 12')",
    );
    assert_eq!(browser.errors, Vec::<String>::new(), "errors in the console");
    let foreign: Vec<&String> = browser
        .requests
        .iter()
        .filter(|asked| !asked.starts_with(&url) && !asked.starts_with("data:"))
        .collect();
    assert!(foreign.is_empty() && browser.requests.len() > 5, "{foreign:?}");
}
