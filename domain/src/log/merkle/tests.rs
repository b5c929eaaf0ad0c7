//! `ct-merkle`, an independent implementation, judges roots and proofs of every size up to 130;
//! every single-bit mutation of small proofs must be refused.

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ct_merkle::{ConsistencyProof, InclusionProof, RootHash};
use proptest::prelude::*;

use super::*;

type Judge = MemoryBackedTree<Sha256, Vec<u8>>;

const JUDGED_SIZE_MAX: usize = 130;
const MUTATED_SIZE_MAX: usize = 9;

fn leaf(index: usize) -> Vec<u8> {
    format!("leaf {index}").into_bytes()
}

fn leaves(size: usize) -> Vec<Digest> {
    (0..size).map(|index| leaf_hash(&leaf(index))).collect()
}

fn judge(size: usize) -> Judge {
    let mut tree = Judge::new();
    (0..size).for_each(|index| tree.push(leaf(index)));
    tree
}

fn root_for_judge(root: &Digest, size: usize) -> RootHash<Sha256> {
    RootHash::new(root.0.into(), size as u64)
}

fn joined(proof: &[Digest]) -> Vec<u8> {
    proof.iter().flat_map(|hash| hash.0).collect()
}

fn with_bit_flipped(hash: &Digest, bit: usize) -> Digest {
    let mut bytes = hash.0;
    bytes[bit / 8] ^= 1 << (bit % 8);
    Digest(bytes)
}

/// Every proof that differs from `proof` in one bit, or in one hash more or less.
fn mutations(proof: &[Digest]) -> Vec<Vec<Digest>> {
    let flipped = (0..proof.len()).flat_map(|at| {
        (0..8 * HASH_BYTES).map(move |bit| {
            let mut mutated = proof.to_vec();
            mutated[at] = with_bit_flipped(&mutated[at], bit);
            mutated
        })
    });
    let shorter = (0..proof.len()).map(|at| {
        let mut mutated = proof.to_vec();
        mutated.remove(at);
        mutated
    });
    let longer = (0..=proof.len()).map(|at| {
        let mut mutated = proof.to_vec();
        mutated.insert(at, empty_root());
        mutated
    });
    flipped.chain(shorter).chain(longer).collect()
}

#[test]
fn known_roots_of_rfc_6962_test_data() {
    // The reference leaves and roots of the Certificate Transparency implementations' tests.
    let inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657"];
    let hashes = inputs.map(|hexed| leaf_hash(&hex::decode(hexed).unwrap()));
    let roots = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    ];
    for (size, expected) in roots.iter().enumerate() {
        assert_eq!(root_of(hashes.iter().copied().take(size)).to_string(), *expected);
    }
}

#[test]
fn the_judge_finds_the_same_roots_and_inclusion_proofs() {
    let all = leaves(JUDGED_SIZE_MAX);
    for size in 0..=JUDGED_SIZE_MAX {
        let tree = judge(size);
        let root = root_of(all[..size].iter().copied());
        assert_eq!(root.0.as_slice(), tree.root().as_bytes().as_slice(), "root of {size}");
        for index in 0..size {
            let proof = inclusion_proof(&all[..size], index).unwrap();
            assert_eq!(joined(&proof), tree.prove_inclusion(index).as_bytes(), "{index} of {size}");
            let verdict = verify_inclusion(&all[index], index as u64, size as u64, &proof, &root);
            assert_eq!(verdict, Ok(()), "{index} of {size}");
            let judged = InclusionProof::from_bytes(joined(&proof));
            root_for_judge(&root, size)
                .verify_inclusion(&leaf(index), index as u64, &judged)
                .unwrap();
        }
    }
}

#[test]
fn the_judge_finds_the_same_consistency_proofs() {
    let all = leaves(JUDGED_SIZE_MAX);
    let roots: Vec<Digest> =
        (0..=JUDGED_SIZE_MAX).map(|size| root_of(all[..size].iter().copied())).collect();
    for second in 0..=JUDGED_SIZE_MAX {
        let tree = judge(second);
        for first in 0..=second {
            let proof = consistency_proof(&all[..second], first).unwrap();
            let verdict = verify_consistency(
                first as u64,
                &roots[first],
                second as u64,
                &roots[second],
                &proof,
            );
            assert_eq!(verdict, Ok(()), "{first} in {second}");
            // The judge has no proof from the empty tree.
            if first > 0 {
                let judged = tree.prove_consistency(second - first);
                assert_eq!(joined(&proof), judged.as_bytes(), "{first} in {second}");
                let ours = ConsistencyProof::try_from_bytes(joined(&proof)).unwrap();
                root_for_judge(&roots[second], second)
                    .verify_consistency(&root_for_judge(&roots[first], first), &ours)
                    .unwrap();
            }
        }
    }
}

#[test]
fn every_mutation_of_an_inclusion_proof_is_refused() {
    let all = leaves(MUTATED_SIZE_MAX);
    for size in 1..=MUTATED_SIZE_MAX {
        let root = root_of(all[..size].iter().copied());
        for index in 0..size {
            let proof = inclusion_proof(&all[..size], index).unwrap();
            let check = |leaf: &Digest, index: usize, proof: &[Digest], root: &Digest| {
                verify_inclusion(leaf, index as u64, size as u64, proof, root)
            };
            for mutated in mutations(&proof) {
                assert!(check(&all[index], index, &mutated, &root).is_err());
            }
            for bit in 0..8 * HASH_BYTES {
                assert!(check(&with_bit_flipped(&all[index], bit), index, &proof, &root).is_err());
                assert!(check(&all[index], index, &proof, &with_bit_flipped(&root, bit)).is_err());
            }
            for elsewhere in (0..=size).filter(|elsewhere| *elsewhere != index) {
                assert!(check(&all[index], elsewhere, &proof, &root).is_err());
            }
        }
    }
}

#[test]
fn every_mutation_of_a_consistency_proof_is_refused() {
    let all = leaves(MUTATED_SIZE_MAX);
    let roots: Vec<Digest> =
        (0..=MUTATED_SIZE_MAX).map(|size| root_of(all[..size].iter().copied())).collect();
    for second in 0..=MUTATED_SIZE_MAX {
        for first in 0..=second {
            let proof = consistency_proof(&all[..second], first).unwrap();
            let check = |first_root: &Digest, second_root: &Digest, proof: &[Digest]| {
                verify_consistency(first as u64, first_root, second as u64, second_root, proof)
            };
            for mutated in mutations(&proof) {
                assert!(check(&roots[first], &roots[second], &mutated).is_err());
            }
            for bit in 0..8 * HASH_BYTES {
                let other = with_bit_flipped(&roots[first], bit);
                assert!(check(&other, &roots[second], &proof).is_err());
                // Nothing but its own root binds a tree that begins with the empty one.
                if first > 0 {
                    let other = with_bit_flipped(&roots[second], bit);
                    assert!(check(&roots[first], &other, &proof).is_err());
                }
            }
        }
    }
}

#[test]
fn sizes_at_the_ends_of_u64_neither_panic_nor_pass() {
    let hash = empty_root();
    let sizes = [0, 1, 2, 3, (1 << 63) - 1, 1 << 63, (1 << 63) + 1, u64::MAX - 1, u64::MAX];
    for first in sizes {
        for second in sizes {
            for length in [0, 1, 2, 62, 63, 64, 65, 66, 200] {
                let proof = vec![hash; length];
                let included = verify_inclusion(&hash, first, second, &proof, &hash);
                let alone = (first, second, length) == (0, 1, 0);
                assert_eq!(included.is_ok(), alone, "{first} {second} {length}");
                let consistent = verify_consistency(first, &hash, second, &hash, &proof);
                let same = first == second && length == 0;
                assert_eq!(consistent.is_ok(), same, "{first} {second} {length}");
            }
        }
    }
}

#[test]
fn a_root_of_the_empty_tree_never_stands_for_a_tree_with_leaves() {
    let empty = empty_root();
    let one = leaf_hash(b"");
    assert_eq!(verify_consistency(0, &empty, 1, &one, &[]), Ok(()));
    assert_eq!(verify_consistency(0, &empty, 1, &empty, &[]), Err(MerkleError::RootMismatch));
    assert_eq!(verify_consistency(0, &one, 1, &one, &[]), Err(MerkleError::RootMismatch));
}

#[test]
fn proofs_of_what_is_not_there_are_refused() {
    let all = leaves(3);
    assert_eq!(inclusion_proof(&all, 3), Err(MerkleError::OutsideTree { index: 3, size: 3 }));
    assert_eq!(inclusion_proof(&[], 0), Err(MerkleError::OutsideTree { index: 0, size: 0 }));
    assert_eq!(consistency_proof(&all, 4), Err(MerkleError::Shrunk { first: 4, second: 3 }));
}

#[test]
fn a_stored_frontier_of_another_length_or_size_is_refused() {
    let mut frontier = Frontier::new();
    frontier.extend(leaves(7));
    let bytes = frontier.to_bytes();
    for length in 0..bytes.len() {
        assert!(Frontier::from_bytes(&bytes[..length]).is_err(), "{length}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(Frontier::from_bytes(&longer).is_err());
    let mut other_size = bytes.clone();
    other_size[7] = 8;
    assert!(Frontier::from_bytes(&other_size).is_err());
    let mut beyond = u64::to_be_bytes(1 << 63).to_vec();
    beyond.extend([0; HASH_BYTES]);
    assert!(Frontier::from_bytes(&beyond).is_err());
}

#[test]
fn the_largest_stored_frontier_still_takes_a_leaf() {
    let mut bytes = TREE_SIZE_MAX.to_be_bytes().to_vec();
    bytes.extend([7; 63 * HASH_BYTES]);
    let mut frontier = Frontier::from_bytes(&bytes).unwrap();
    frontier.push(leaf_hash(b"last"));
    assert_eq!(frontier.size(), 1 << 63);
    assert_eq!(frontier.to_bytes().len(), 8 + HASH_BYTES);
}

proptest! {
    #[test]
    fn a_frontier_stored_and_read_anywhere_goes_on_to_the_same_root(
        size in 0usize..400, stored_at in 0usize..400,
    ) {
        let all = leaves(size);
        let (before, after) = all.split_at(stored_at.min(size));
        let mut frontier = Frontier::new();
        frontier.extend(before.iter().copied());
        let mut read = Frontier::from_bytes(&frontier.to_bytes()).unwrap();
        prop_assert_eq!(&read, &frontier);
        read.extend(after.iter().copied());
        prop_assert_eq!(read.size(), size as u64);
        prop_assert_eq!(read.root(), root_of(all));
    }

    #[test]
    fn any_bytes_are_a_frontier_that_writes_them_back_or_are_refused(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        if let Ok(frontier) = Frontier::from_bytes(&bytes) {
            prop_assert_eq!(frontier.to_bytes(), bytes);
        }
    }

    #[test]
    fn no_proof_of_random_hashes_passes(
        index in any::<u64>(), size in any::<u64>(),
        hashes in proptest::collection::vec(any::<[u8; HASH_BYTES]>(), 0..70),
    ) {
        let proof: Vec<Digest> = hashes.into_iter().map(Digest).collect();
        let root = empty_root();
        prop_assert!(verify_inclusion(&leaf_hash(b"x"), index, size, &proof, &root).is_err());
        let (first, second) = (index.min(size), index.max(size));
        let verdict = verify_consistency(first, &root, second, &leaf_hash(b"x"), &proof);
        prop_assert!(verdict.is_err() || first == 0 && proof.is_empty());
    }
}
