//! What the table holds, read from the kernel.

use corten_netlink::nft::{BaseChain, BaseEntry, Element, Elements, SetKind};
use corten_netlink::{NetlinkError, Socket};

use super::{Chain, Content, Elementary, Shape, TABLE};

/// The table as the kernel has it.
#[derive(Debug)]
pub enum Actual {
    Missing,
    /// It is there, and cannot become what is wanted: dormant, or sets or hooks of another shape.
    Foreign,
    Table(Content),
    /// Elements were listed twice: the kernel is still rehashing a set that has changed much. Read again a little later.
    Rehashing,
}

/// A set that is not wanted: only its name matters.
const UNWANTED: Shape = Shape { key: &[], kind: SetKind::Plain, elements: Elements::Single };

/// `desired`: gives sets and hooks the shapes that what is found is compared with.
pub fn read(socket: &mut Socket, desired: &Content) -> Result<Actual, NetlinkError> {
    match socket.nft_table(TABLE)? {
        None => return Ok(Actual::Missing),
        Some(false) => return Ok(Actual::Foreign),
        Some(true) => {}
    }
    let mut content = Content::default();
    for entry in socket.nft_chain_entries(TABLE)? {
        let wanted = desired.chains.get(&entry.name).and_then(|chain| chain.base);
        let Ok(base) = same_hook(entry.base.as_ref(), wanted) else { return Ok(Actual::Foreign) };
        content.chains.insert(entry.name, Chain { base, rules: Vec::new() });
    }
    for rule in socket.nft_table_rules(TABLE)? {
        if let Some(chain) = content.chains.get_mut(&rule.chain) {
            chain.rules.push(rule.expressions.unwrap_or_default());
        }
    }
    for entry in socket.nft_sets(TABLE)? {
        let Some(wanted) = desired.sets.get(&entry.name) else {
            content.sets.insert(entry.name, Elementary { shape: UNWANTED, elements: Vec::new() });
            continue;
        };
        if entry.definition != wanted.shape.set(&entry.name).definition() {
            return Ok(Actual::Foreign);
        }
        let filled_by_rules = matches!(wanted.shape.elements, Elements::Dynamic { .. });
        let elements = if filled_by_rules { Vec::new() } else { socket.nft_elements(TABLE, &entry.name)? };
        let Some(elements) = sorted(elements) else { return Ok(Actual::Rehashing) };
        content.sets.insert(entry.name, Elementary { shape: wanted.shape, elements });
    }
    Ok(Actual::Table(content))
}

/// The hook as we name it. A missing hook is seen by the comparison.
fn same_hook(found: Option<&BaseEntry>, wanted: Option<BaseChain>) -> Result<Option<BaseChain>, Another> {
    match (found, wanted) {
        (None, _) => Ok(None),
        (Some(found), Some(wanted)) if found.is(wanted) => Ok(Some(wanted)),
        (Some(_), _) => Err(Another),
    }
}

/// Another hook than the wanted one, or one where none should be.
struct Another;

/// `None`: a key is there twice.
fn sorted(mut elements: Vec<Element>) -> Option<Vec<Element>> {
    elements.sort_unstable();
    let twice =
        elements.windows(2).any(|pair| pair[0].key == pair[1].key && pair[0].key_end == pair[1].key_end);
    (!twice).then_some(elements)
}
