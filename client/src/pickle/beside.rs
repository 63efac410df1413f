//! Which buffer beside a pickle is the data of which value in it (`serialize/serialize.py: deserialize_object`).

use std::cmp::Ordering;

use bytes::Bytes;
use remuda_proto::pickle::MAX_ITEMS;

use super::tree::{Kind, Node, Tree};
use super::unfit::Unfit;

/// Hands out `buffers`, in the order in which ipyparallel does: to the value itself, or to its items, those of a dict by
/// their keys.
///
/// # Errors
/// For too few buffers. (Those that are left over are nobody's.)
pub(super) fn hand_out(tree: &mut Tree, buffers: &[Bytes]) -> Result<(), Unfit> {
    let mut next = 0;
    for (holder, wanted) in wanting(tree)? {
        for _ in 0..wanted {
            let buffer = buffers.get(next).ok_or(Unfit::NoBuffer { index: next + 1 })?;
            next += 1;
            tree.beside.entry(holder).or_insert_with(|| buffer.clone());
        }
    }
    Ok(())
}

/// The canned objects whose data is beside the pickle, in order, each with the number of its buffers.
fn wanting(tree: &Tree) -> Result<Vec<(u32, usize)>, Unfit> {
    let root = match tree.node(tree.root) {
        Node::Holder(holder) => tree.holder(holder),
        _ => return Ok(Vec::new()),
    };
    match root.kind {
        Kind::Dict if root.items.len() < 2 * MAX_ITEMS => {
            let pairs = root.items.chunks_exact(2);
            let mut found: Vec<_> = pairs
                .filter_map(|pair| wants(tree, pair[1]).map(|(holder, wanted)| (pair[0], holder, wanted)))
                .collect();
            let mut ordered = true;
            found.sort_by(|one, other| {
                compare(tree, one.0, other.0).unwrap_or_else(|| {
                    ordered = false;
                    Ordering::Equal
                })
            });
            if !ordered {
                return Err(Unfit::Unordered);
            }
            Ok(found.into_iter().map(|(_, holder, wanted)| (holder, wanted)).collect())
        }
        Kind::Object(_) => Ok(wants(tree, tree.root).into_iter().collect()),
        Kind::Dict => Ok(Vec::new()),
        _ if root.items.len() < MAX_ITEMS => Ok(root.items.iter().filter_map(|item| wants(tree, *item)).collect()),
        _ => Ok(Vec::new()),
    }
}

/// The holder of a canned object, and how many buffers it lacks, if any.
fn wants(tree: &Tree, node: u32) -> Option<(u32, usize)> {
    let Node::Holder(holder) = tree.node(node) else { return None };
    let object = tree.holder(holder);
    let Kind::Object(class) = object.kind else { return None };
    let buffers = tree.field(*object.items.get(1)?, "buffers").filter(|_| class.is_canned())?;
    let lacking =
        tree.items(buffers, Kind::List)?.iter().filter(|item| matches!(tree.node(**item), Node::None)).count();
    (lacking > 0).then_some((holder, lacking))
}

/// As Python sorts keys; `None` where it refuses to.
fn compare(tree: &Tree, one: u32, other: u32) -> Option<Ordering> {
    match (tree.node(one), tree.node(other)) {
        // By code points, which is by bytes.
        (Node::Text(one), Node::Text(other)) | (Node::Bytes(one), Node::Bytes(other)) => {
            Some(tree.bytes(one).cmp(tree.bytes(other)))
        }
        (Node::Int(one), Node::Int(other)) => Some(one.cmp(&other)),
        (Node::Float(one), Node::Float(other)) => one.partial_cmp(&other),
        _ => None,
    }
}
