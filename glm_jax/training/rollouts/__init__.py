"""Answers of the policy, their rewards, and the batches that GRPO and PPO are trained on.

prompts  ->  making: answers, rewards, scores, advantages  ->  feed: batches of the steps of a cycle
"""
