//! Volumes and files on a card.
