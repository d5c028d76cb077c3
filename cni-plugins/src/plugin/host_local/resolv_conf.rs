//! The DNS part of a result, from a file in the form of resolv.conf(5).

use std::fs;
use std::path::Path;

use corten_sys::Context;

use crate::Result;
use crate::types::Dns;

pub fn read(path: &Path) -> Result<Dns> {
    Ok(parse(&fs::read_to_string(path).tried(|| format!("read resolvConf {}", path.display()))?))
}

fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace().map(str::to_owned);
        let (Some(keyword), Some(first)) = (words.next(), words.next()) else { continue };
        match keyword.as_str() {
            "nameserver" => dns.nameservers.push(first),
            "domain" => dns.domain = first,
            "search" => dns.search.extend(std::iter::once(first).chain(words)),
            "options" => dns.options.extend(std::iter::once(first).chain(words)),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_keywords_are_read() {
        let dns = parse(
            "# c\n nameserver 10.0.0.1\nnameserver fd00::1 x\nsearch a b\n;x\ndomain d\noptions ndots:5 edns0\nsearch\nsortlist 1\n",
        );
        assert_eq!(dns.nameservers, ["10.0.0.1", "fd00::1"]);
        assert_eq!((dns.domain.as_str(), dns.search.len(), dns.options.len()), ("d", 2, 2));
    }
}
