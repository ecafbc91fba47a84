//! A page of HTML as the text that a terminal can show: for the terms of use that a model comes under.
//!
//! No browser: elements that stand apart begin a line, list items a dash, what is not text (scripts, styles, buttons) is left
//! out. Of a page that marks its article only that is shown, from its title on, so that a site's menus are not.

/// Elements whose contents are no text to be read.
const UNREAD: [&str; 8] = ["head", "script", "style", "noscript", "template", "svg", "nav", "button"];
/// Elements that begin and end a paragraph.
const APART: [&str; 16] = [
    "p",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "ul",
    "ol",
    "table",
    "div",
    "section",
    "article",
    "blockquote",
    "pre",
    "dl",
];
/// Elements that begin a line.
const LINES: [&str; 4] = ["br", "tr", "dt", "dd"];

/// The text of a page: paragraphs with a blank line between.
pub fn text(page: &str) -> String {
    let article = page.find("<article").and_then(|at| Some(at..at + page[at..].find("</article")?));
    let article = article.map_or(page, |article| &page[article]);
    let mut rest = article.find("<h1").map_or(article, |title| &article[title..]);
    let mut text = String::new();
    while let Some(at) = rest.find('<') {
        push_words(&mut text, &rest[..at]);
        rest = &rest[at..];
        let comment = rest.starts_with("<!--");
        let (end, skip) = if comment { ("-->", 3) } else { (">", 1) };
        let Some(close) = rest.find(end) else { return finished(text) };
        let tag = rest[1..close].to_ascii_lowercase();
        rest = &rest[close + skip..];
        let (closing, tag) = (tag.starts_with('/'), tag.trim_start_matches('/'));
        let name = tag.split(|c: char| c.is_whitespace() || c == '/').next().unwrap_or("");
        if comment {
            continue;
        }
        if UNREAD.contains(&name) && !closing {
            // What is in there need not be HTML: only its own end tag counts.
            let end = rest.to_ascii_lowercase().find(&format!("</{name}"));
            rest = end.map_or("", |end| &rest[end..]);
        } else if APART.contains(&name) && !text.ends_with("- ") {
            text.push_str("\n\n"); // but the first paragraph of a list's item stands behind its dash
        } else if name == "li" && !closing {
            text.push_str("\n- ");
        } else if LINES.contains(&name) && !closing {
            text.push('\n');
        }
    }
    push_words(&mut text, rest);
    finished(text)
}

/// Its title and first paragraph.
pub fn beginning(text: &str) -> String {
    // A line is a heading or the like, unless it ends as a sentence does.
    let is_sentence = |part: &&str| part.ends_with(['.', ':', '"', '”']) && part.len() > 60;
    let title = text.lines().next().unwrap_or("");
    match text.split("\n\n").find(is_sentence) {
        Some(paragraph) if paragraph != title => format!("{title}\n\n{paragraph}"),
        _ => title.to_string(),
    }
}

/// Appends text as HTML writes it: runs of white space are one space, `&…;` stands for a character.
fn push_words(text: &mut String, mut html: &str) {
    while let Some(next) = html.chars().next() {
        let (character, length) = if next == '&' { entity(html) } else { (next, next.len_utf8()) };
        if !character.is_whitespace() {
            text.push(character);
        } else if !text.ends_with([' ', '\n']) {
            text.push(' ');
        }
        html = &html[length..];
    }
}

/// The character that this begins with an entity for, and how long that is. One that is not known stays as it is written.
fn entity(html: &str) -> (char, usize) {
    let known = html.find(';').filter(|end| *end <= 10).and_then(|end| {
        let character = match &html[1..end] {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" | "rsquo" | "lsquo" => '\'',
            "ldquo" => '“',
            "rdquo" => '”',
            "nbsp" => ' ',
            "ndash" => '–',
            "mdash" => '—',
            "copy" => '©',
            number => {
                let number = number.strip_prefix('#')?;
                let hexadecimal =
                    number.strip_prefix(['x', 'X']).map(|digits| u32::from_str_radix(digits, 16));
                let code = hexadecimal.unwrap_or_else(|| number.parse()).ok()?;
                // A page from outside sends no escape sequence to a terminal.
                char::from_u32(code).filter(|character| !character.is_control())?
            }
        };
        Some((character, end + 1))
    });
    known.unwrap_or(('&', 1))
}

/// No control characters, no spaces at ends, no dash without a text, one blank line between paragraphs.
fn finished(text: String) -> String {
    let text: String = text.chars().filter(|c| *c == '\n' || !c.is_control()).collect();
    let mut out = String::new();
    for line in text.lines().map(str::trim) {
        let blank = line.is_empty() || line == "-";
        if !blank {
            out.push_str(line);
            out.push('\n');
        } else if !out.is_empty() && !out.ends_with("\n\n") {
            out.push('\n');
        }
    }
    out.trim_end().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_becomes_its_article_in_paragraphs_and_lists() {
        let page = "<html><head><title>T</title></head><body><nav>Menu</nav><article class=x>\n<script>if (a<b) {}</script>\
            <p>News</p><h1>Terms &amp; more</h1><!-- <p>not this</p> --><p>Who   uses\nit <a href='/x'>agrees</a>&nbsp;to&#58; &lt;all&gt;.</p>\
            <ul><li>one</li><li><p>two &unknown;</p></li></ul><button>Share</button></article><p>Footer</p></body></html>";
        let wanted = "Terms & more\n\nWho uses it agrees to: <all>.\n\n- one\n- two &unknown;";
        assert_eq!(text(page), wanted);
    }

    #[test]
    fn plain_words_cut_tags_and_escape_sequences_do_no_harm() {
        assert_eq!(text("plain & simple\n text"), "plain & simple text");
        assert_eq!(text("a<b"), "a");
        assert_eq!(text("a<!-- b"), "a");
        assert_eq!(text("<p>\u{1b}[2Jred&#27;[0m</p>"), "[2Jred&#27;[0m");
        assert_eq!(text(""), "");
    }

    #[test]
    fn the_beginning_is_the_title_and_the_first_sentence_of_some_length() {
        let long = "By using or distributing any portion of this model you agree to be bound by these terms.";
        let whole = format!("Terms\n\nLast modified: today\n\n{long}\n\nSecond.");
        assert_eq!(beginning(&whole), format!("Terms\n\n{long}"));
        assert_eq!(beginning("Terms"), "Terms");
    }
}
